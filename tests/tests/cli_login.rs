//! Credentials of the `joey` command, against a registry that asks for them.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use joey_tests::{CREDENTIALS, Registry, Stand, Terminal, busybox, piped};
use serde_json::Value;

/// A stand and a private registry with an image.
async fn stand() -> (Stand, Registry, String) {
    let stand = Stand::start().await;
    let registry = Registry::start_private().await;
    let mut image = busybox();
    image.file("private", 0o644, b"private");
    let name = registry.push("team/private", "1", image).await;
    (stand, registry, name)
}

fn with_home(stand: &Stand, home: &Path, arguments: &[&str]) -> Command {
    let mut command = stand.joey_command(arguments);
    command
        .env("HOME", home)
        .env_remove("DOCKER_CONFIG")
        .env_remove("REGISTRY_AUTH_FILE");
    command
}

fn with_input(command: &mut Command, input: &str) -> Output {
    let mut child = piped(command);
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn host(name: &str) -> &str {
    name.split('/').next().unwrap()
}

#[tokio::test]
async fn a_login_is_checked_kept_and_used() {
    let (stand, _registry, name) = stand().await;
    let (user, password) = CREDENTIALS;
    let home = tempfile::tempdir().unwrap();
    let joey = |arguments: &[&str]| with_home(&stand, home.path(), arguments).output().unwrap();
    let login = ["login", "-u", user, "--password-stdin", host(&name)];

    let refused = joey(&["pull", &name]);
    assert!(!refused.status.success());
    assert!(
        String::from_utf8(refused.stderr)
            .unwrap()
            .contains("user name and password")
    );
    let wrong = with_input(&mut with_home(&stand, home.path(), &login), "wrong-word\n");
    assert!(!wrong.status.success(), "{wrong:?}");
    let error = String::from_utf8(wrong.stderr).unwrap();
    assert!(
        error.contains("refused") && !error.contains("wrong-word"),
        "{error}"
    );
    let file = home.path().join(".docker/config.json");
    assert!(!file.exists(), "what is refused is not kept");

    let done = with_input(
        &mut with_home(&stand, home.path(), &login),
        &format!("{password}\n"),
    );
    assert!(done.status.success(), "{done:?}");
    assert_eq!(done.stdout, b"Login Succeeded\n");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(file.parent().unwrap()), 0o700);
    let content: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(content["auths"][host(&name)]["auth"], "YWxpY2U6c2VjcmV0");

    let run = joey(&["run", "--rm", &name, "cat", "/private"]);
    assert_eq!(run.stdout, b"private", "{run:?}");
    stand.out(&["rmi", &name]);
    assert!(joey(&["pull", "-q", &name]).status.success());
    // Another file by either variable.
    let moved = home.path().join("auth.json");
    std::fs::rename(&file, &moved).unwrap();
    assert!(!joey(&["pull", &name]).status.success());
    let mut other = with_home(&stand, home.path(), &["pull", "-q", &name]);
    assert!(
        other
            .env("REGISTRY_AUTH_FILE", &moved)
            .status()
            .unwrap()
            .success()
    );
    std::fs::rename(&moved, home.path().join("config.json")).unwrap();
    let mut other = with_home(&stand, home.path(), &["pull", "-q", &name]);
    assert!(
        other
            .env("DOCKER_CONFIG", home.path())
            .status()
            .unwrap()
            .success()
    );
    std::fs::rename(home.path().join("config.json"), &file).unwrap();

    assert!(joey(&["logout", host(&name)]).status.success());
    assert!(!joey(&["pull", &name]).status.success());
    let again = joey(&["logout", host(&name)]);
    assert!(again.status.success() && again.stdout.starts_with(b"Not logged in"));
    let log = stand.daemon.log();
    assert!(
        !log.contains(password) && !log.contains("wrong-word"),
        "{log}"
    );
    stand.out(&["rmi", &name]);
    stand.assert_clean().await;
}

#[tokio::test]
async fn credentials_of_one_pull() {
    let (stand, _registry, name) = stand().await;
    let (user, password) = CREDENTIALS;
    let home = tempfile::tempdir().unwrap();
    let creds = format!("{user}:{password}");
    let joey = |arguments: &[&str]| with_home(&stand, home.path(), arguments).output().unwrap();
    let run = joey(&["run", "--rm", "--creds", &creds, &name, "cat", "/private"]);
    assert_eq!(run.stdout, b"private", "{run:?}");
    // Present or not, the registry is asked.
    assert!(!joey(&["pull", &name]).status.success());
    assert!(
        !joey(&["pull", "--creds", "alice:other", &name])
            .status
            .success()
    );
    let pulled = joey(&["pull", "--creds", &creds, &name]);
    assert!(pulled.status.success());
    let told = String::from_utf8(pulled.stderr).unwrap();
    assert!(
        told.contains("WARNING") && !told.contains(password),
        "{told}"
    );
    assert!(!home.path().join(".docker").exists(), "nothing is kept");
    stand.out(&["rmi", &name]);
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_helper_keeps_secrets_and_is_told_them_by_no_argument() {
    let (stand, _registry, name) = stand().await;
    let (user, password) = CREDENTIALS;
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join(".docker/config.json");
    std::fs::create_dir(home.path().join(".docker")).unwrap();
    std::fs::write(&config, r#"{"credsStore": "test"}"#).unwrap();
    let helper = home.path().join("docker-credential-test");
    let script = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\necho \"$@\" >> arguments\n\
        case $1 in\nstore) cat > kept ;;\nerase) rm kept ;;\n\
        get) cat > /dev/null; cat kept 2>/dev/null || { echo 'credentials not found in native keychain'; exit 1; } ;;\nesac\n";
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!(
        "{}:{}",
        home.path().display(),
        std::env::var("PATH").unwrap()
    );
    let command = |arguments: &[&str]| {
        let mut command = with_home(&stand, home.path(), arguments);
        command.env("PATH", &path);
        command
    };
    assert!(!command(&["pull", &name]).status().unwrap().success());
    let login = ["login", "-u", user, "--password-stdin", host(&name)];
    let done = with_input(&mut command(&login), password);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(
        std::fs::read_to_string(&config).unwrap(),
        r#"{"credsStore": "test"}"#
    );
    assert!(command(&["pull", "-q", &name]).status().unwrap().success());
    assert!(
        command(&["logout", host(&name)])
            .status()
            .unwrap()
            .success()
    );
    assert!(!home.path().join("kept").exists());
    assert!(!command(&["pull", &name]).status().unwrap().success());
    let arguments = std::fs::read_to_string(home.path().join("arguments")).unwrap();
    let mut verbs: Vec<&str> = arguments.lines().collect();
    verbs.sort_unstable();
    verbs.dedup();
    assert_eq!(verbs, ["erase", "get", "store"]);
    // One that is not there is named.
    std::fs::write(&config, r#"{"credsStore": "nosuch"}"#).unwrap();
    let missing = command(&["pull", &name]).output().unwrap();
    let error = String::from_utf8(missing.stderr).unwrap();
    assert!(error.contains("docker-credential-nosuch"), "{error}");
    stand.out(&["rmi", &name]);
    stand.assert_clean().await;
}

#[tokio::test]
async fn logins_at_once_are_all_kept() {
    let (stand, first, name) = stand().await;
    let second = Registry::start_private().await;
    let other = second.push("team/private", "1", busybox()).await;
    let (user, password) = CREDENTIALS;
    for _ in 0..5 {
        let home = tempfile::tempdir().unwrap();
        let login = |name: &str| {
            let login = ["login", "-u", user, "-p", password, host(name)];
            piped(&mut with_home(&stand, home.path(), &login))
        };
        for login in [login(&name), login(&other)] {
            let done = login.wait_with_output().unwrap();
            assert!(done.status.success(), "{done:?}");
            assert!(done.stderr.starts_with(b"joey: WARNING"), "{done:?}");
        }
        let content = std::fs::read(home.path().join(".docker/config.json")).unwrap();
        let content: Value = serde_json::from_slice(&content).unwrap();
        assert_eq!(content["auths"].as_object().unwrap().len(), 2, "{content}");
    }
    drop((first, second));
    stand.assert_clean().await;
}

#[tokio::test]
async fn the_file_stays_its_owners() {
    let (stand, _registry, name) = stand().await;
    let (user, password) = CREDENTIALS;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".docker/config.json");
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "{}").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&file, Some(1234), Some(2345)).unwrap();
    let login = ["login", "-u", user, "--password-stdin", host(&name)];
    let done = with_input(&mut with_home(&stand, home.path(), &login), password);
    assert!(done.status.success(), "{done:?}");
    assert!(
        std::fs::read_to_string(&file)
            .unwrap()
            .contains(host(&name))
    );
    let kept = std::fs::metadata(&file).unwrap();
    assert_eq!(
        (kept.uid(), kept.gid(), kept.mode() & 0o7777),
        (1234, 2345, 0o640)
    );
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_password_is_not_shown_and_can_be_given_up() {
    let (stand, _registry, name) = stand().await;
    let (user, password) = CREDENTIALS;
    let home = tempfile::tempdir().unwrap();
    let login = ["login", "-u", user, host(&name)];
    let echo = |terminal: &Terminal| {
        let mode = rustix::termios::tcgetattr(terminal.master()).unwrap();
        mode.local_modes.contains(rustix::termios::LocalModes::ECHO)
    };
    for (typed, signal) in [(&b"sec\x03"[..], 2), (b"\x1c", 3)] {
        let mut terminal = Terminal::start(&mut with_home(&stand, home.path(), &login));
        terminal.see("Password: ");
        assert!(!echo(&terminal));
        terminal.type_in(typed);
        let (shown, status) = terminal.ended();
        assert_eq!((shown.trim(), status.signal()), ("", Some(signal)));
        assert!(echo(&terminal));
    }
    let mut terminal = Terminal::start(&mut with_home(&stand, home.path(), &login));
    terminal.see("Password: ");
    // The line can be edited.
    terminal.type_in(format!("wrong\x15{password}x\x7f\n").as_bytes());
    let (shown, status) = terminal.ended();
    assert!(
        status.success() && shown.trim() == "Login Succeeded",
        "{shown}"
    );
    assert!(echo(&terminal));
    stand.assert_clean().await;
}
