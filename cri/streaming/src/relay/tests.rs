//! Relays over real pipes, terminals and processes.

use std::process::Stdio;

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::DuplexStream;
use tokio::process::Command;
use tokio::time::timeout;

use super::*;

fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC).unwrap()
}

fn client() -> (BoxedWriter, DuplexStream) {
    let (near, far) = tokio::io::duplex(1024);
    (Box::new(near), far)
}

async fn all(mut stream: DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

/// Runs a shell command behind `process` and gives its code, output and errors.
async fn shell(script: &str, input: &'static [u8], drain: Duration) -> (i32, Vec<u8>, Vec<u8>) {
    let ((stdin, in_end), (out_end, stdout), (err_end, stderr)) = (pipe(), pipe(), pipe());
    let mut child = Command::new("sh")
        .args(["-c", script])
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(stderr))
        .spawn()
        .unwrap();
    let fds = ProcessFds {
        stdin: Some(in_end),
        stdout: Some(out_end),
        stderr: Some(err_end),
    };
    let ((stdout, out), (stderr, err)) = (client(), client());
    let ends = ClientEnds {
        stdin: Some(Box::new(input)),
        stdout: Some(stdout),
        stderr: Some(stderr),
    };
    let exited = async { child.wait().await.unwrap().code().unwrap() };
    let (code, out, err) = tokio::join!(process(fds, ends, exited, drain), all(out), all(err));
    (code.unwrap(), out, err)
}

#[tokio::test]
async fn a_process_gets_its_input_with_its_end() {
    let (code, out, err) = shell("cat; echo done >&2; exit 7", b"input", DRAIN).await;
    assert_eq!(
        (code, &out[..], &err[..]),
        (7, &b"input"[..], &b"done\n"[..])
    );
}

#[tokio::test]
async fn all_output_comes_through_a_slow_client() {
    let (code, out, _) = shell("head -c 3000000 /dev/zero", b"", Duration::from_millis(1)).await;
    assert_eq!((code, out.len()), (0, 3_000_000));
}

#[tokio::test]
async fn an_output_kept_open_by_a_grandchild_is_left_after_the_bound() {
    let started = Instant::now();
    let (code, out, _) = shell(
        "sleep 30 & echo $!; exit 0",
        b"",
        Duration::from_millis(300),
    )
    .await;
    assert_eq!(code, 0);
    let pid = String::from_utf8(out).unwrap().trim().parse().unwrap();
    assert!(started.elapsed() < Duration::from_secs(10));
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_process_that_ignores_its_input_is_not_waited_for() {
    let (stdin, in_end) = pipe();
    let mut child = Command::new("true")
        .stdin(Stdio::from(stdin))
        .spawn()
        .unwrap();
    let (_typing, silent) = tokio::io::duplex(16);
    let fds = ProcessFds {
        stdin: Some(in_end),
        ..ProcessFds::default()
    };
    let ends = ClientEnds {
        stdin: Some(Box::new(silent)),
        ..ClientEnds::default()
    };
    let exited = async { child.wait().await.unwrap().success() };
    let relay = process(fds, ends, exited, DRAIN);
    assert!(
        timeout(Duration::from_secs(5), relay)
            .await
            .unwrap()
            .unwrap()
    );
}

#[tokio::test]
async fn a_client_that_left_closes_the_output() {
    let (out_end, stdout) = pipe();
    let mut child = Command::new("yes")
        .stdout(Stdio::from(stdout))
        .spawn()
        .unwrap();
    let (stdout, out) = client();
    drop(out);
    let fds = ProcessFds {
        stdout: Some(out_end),
        ..ProcessFds::default()
    };
    let ends = ClientEnds {
        stdout: Some(stdout),
        ..ClientEnds::default()
    };
    let exited = async { child.wait().await.unwrap().success() };
    let relay = process(fds, ends, exited, DRAIN);
    assert!(
        !timeout(Duration::from_secs(5), relay)
            .await
            .unwrap()
            .unwrap()
    );
}

#[tokio::test]
async fn a_terminal_ends_when_its_last_user_closes_it() {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    rustix::io::write(&slave, b"bye\n").unwrap();
    drop(slave);
    let mut reader = PipeReader::from_fd(master).unwrap();
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, b"bye\r\n");
}

#[tokio::test]
async fn regular_files_are_refused() {
    let file = std::fs::File::open("/etc/hostname").or_else(|_| std::fs::File::open("Cargo.toml"));
    let error = PipeReader::from_fd(file.unwrap().into()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
}
