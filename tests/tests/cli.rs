//! The `joey` command against a daemon.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use joey_proto::cri::*;
use joey_tests::{Stand, binary, eventually};

#[tokio::test]
async fn versions_and_info() {
    let stand = Stand::start().await;
    let version = stand.out(&["version"]);
    assert!(
        version.contains("joey: ") && version.contains("joeyd: "),
        "{version}"
    );
    let info = stand.out(&["info"]);
    assert!(info.lines().count() > 5 && info.contains("group"), "{info}");
    let nobody = Command::new(binary("joey"))
        .args(["-H", "unix:///run/no-such.sock", "ps"])
        .output()
        .unwrap();
    assert!(!nobody.status.success());
    let error = String::from_utf8(nobody.stderr).unwrap();
    assert!(error.contains("/run/no-such.sock"), "{error}");
    let alone = Command::new(binary("joey"))
        .args(["-H", "unix:///run/no-such.sock", "version"])
        .output()
        .unwrap();
    assert!(alone.stdout.starts_with(b"joey: ") && !alone.status.success());
    stand.assert_clean().await;
}

#[tokio::test]
async fn images_are_fetched_listed_and_removed() {
    let stand = Stand::start().await;
    let name = stand
        .registry
        .push("test/other", "1.0", {
            let mut image = joey_tests::busybox();
            image.file("other", 0o644, b"other");
            image
        })
        .await;
    let pulled = stand.joey(&["pull", &name]);
    assert!(pulled.status.success(), "{pulled:?}");
    let id = String::from_utf8(pulled.stdout).unwrap();
    assert!(id.starts_with("sha256:") && id.ends_with('\n'), "{id}");
    let progress = String::from_utf8(pulled.stderr).unwrap();
    assert!(progress.contains("Done"), "{progress}");
    assert!(
        !progress.contains('\u{1b}') && !progress.contains('\r'),
        "a pipe gets plain lines: {progress:?}"
    );
    assert_eq!(stand.out(&["pull", "-q", &name]), id);
    let images = stand.out(&["images"]);
    assert!(
        images.contains("test/other") && images.contains("1.0"),
        "{images}"
    );
    assert_eq!(images.lines().count(), 3, "{images}");
    // A tag of several goes alone.
    let mut same = joey_tests::busybox();
    same.file("other", 0o644, b"other");
    let second = stand.registry.push("test/other", "2.0", same).await;
    assert_eq!(stand.out(&["pull", "-q", &second]), id);
    assert_eq!(stand.out(&["rmi", &second]), format!("{second}\n"));
    let images = stand.out(&["images"]);
    assert!(
        images.contains("other:1.0") && !images.contains("other:2.0"),
        "{images}"
    );
    assert_eq!(stand.out(&["rmi", &name]), format!("{name}\n"));
    assert!(!stand.out(&["images"]).contains("test/other"));
    let missing = stand.joey(&["rmi", &name]);
    assert!(!missing.status.success());
    assert!(String::from_utf8(missing.stderr).unwrap().contains(&name));
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_run_ends_with_its_commands_code() {
    let stand = Stand::start().await;
    let image = stand.image_name.as_str();
    let run = |command: &[&str]| {
        let mut all = vec!["run", "--rm", image];
        all.extend(command);
        stand.joey(&all)
    };
    let hello = run(&["sh", "-c", "echo hello; echo trouble >&2"]);
    assert_eq!(hello.stdout, b"hello\n");
    assert_eq!(hello.stderr, b"trouble\n");
    assert_eq!(hello.status.code(), Some(0));
    assert_eq!(run(&["sh", "-c", "exit 3"]).status.code(), Some(3));
    assert_eq!(run(&["/no/such/program"]).status.code(), Some(127));
    assert_eq!(
        run(&["sh", "-c", "sh -c 'kill -9 $$'; exit $?"])
            .status
            .code(),
        Some(137)
    );
    let large = run(&["head", "-c", "5000000", "/dev/zero"]);
    assert_eq!(large.stdout.len(), 5_000_000);
    let missing = stand.registry.name("test/none:1");
    assert_eq!(stand.fails(&["run", &missing, "true"]).0, 125);
    assert_eq!(stand.out(&["ps", "-a", "-q"]), "", "nothing stays behind");
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_background_container_from_start_to_end() {
    let stand = Stand::start().await;
    let image = stand.image_name.as_str();
    let script = "echo one; echo two >&2; trap 'exit 5' TERM; while :; do sleep 0.1; done";
    let id = stand.out(&["run", "-d", "--name", "web", image, "sh", "-c", script]);
    let id = id.trim();
    assert_eq!(id.len(), 64);
    let listed = stand.out(&["ps"]);
    assert!(
        listed.contains("web") && listed.contains(&id[..6]),
        "{listed}"
    );
    eventually("both lines are there", || async {
        let logs = stand.joey(&["logs", "web"]);
        logs.stdout == b"one\n" && logs.stderr == b"two\n"
    })
    .await;
    assert_eq!(stand.out(&["logs", "-n", "1", "web"]), "");
    assert_eq!(stand.out(&["exec", "web", "echo", "hi"]), "hi\n");
    assert_eq!(stand.fails(&["exec", "web", "sh", "-c", "exit 4"]).0, 4);
    assert_eq!(stand.fails(&["exec", "web", "/no/such"]).0, 127);
    let taken = stand.joey(&["run", "-d", "--name", "web", image, "true"]);
    assert_eq!(taken.status.code(), Some(125));
    assert!(String::from_utf8(taken.stderr).unwrap().contains("web"));

    // The kubelet kills what it does not know, so it must not see these.
    let mut runtime = stand.client.runtime();
    let pods = runtime
        .list_pod_sandbox(ListPodSandboxRequest::default())
        .await;
    assert!(pods.unwrap().into_inner().items.is_empty());
    let containers = runtime
        .list_containers(ListContainersRequest::default())
        .await;
    assert!(containers.unwrap().into_inner().containers.is_empty());
    let stats = runtime
        .list_container_stats(ListContainerStatsRequest::default())
        .await;
    assert!(stats.unwrap().into_inner().stats.is_empty());
    let request = ContainerStatusRequest {
        container_id: id.into(),
        verbose: false,
    };
    let hidden = runtime.container_status(request).await.unwrap_err();
    assert_eq!(hidden.code(), tonic::Code::NotFound);

    assert!(!stand.joey(&["rm", "web"]).status.success(), "it runs");
    assert_eq!(stand.out(&["stop", "web"]), "web\n");
    assert!(!stand.out(&["ps"]).contains("web"));
    let all = stand.out(&["ps", "-a"]);
    assert!(all.contains("web") && all.contains('5'), "{all}");
    assert_eq!(stand.out(&["rm", "web"]), "web\n");
    assert!(!stand.out(&["ps", "-a"]).contains("web"));
    assert!(!stand.joey(&["logs", "web"]).status.success());
    stand.assert_clean().await;
}
