//! The thinnest line: pull, run, logs, exec, stop, remove.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use joey_proto::cri::*;
use joey_tests::{Daemon, Footprint, Registry, Stand, busybox, container_spec, pod_config};
use rustix::fs::{self, Mode, OFlags};

#[tokio::test]
async fn a_container_runs_logs_execs_stops_and_leaves_nothing() {
    let registry = Registry::start().await;
    let name = registry.push("test/busybox", "latest", busybox()).await;
    let daemon = Daemon::start().await;
    let client = daemon.client().await;
    let image = client.pull(&name).await;
    assert!(image.starts_with("sha256:"), "{image}");

    let before = Footprint::of(&daemon);
    let logs = tempfile::tempdir().unwrap();
    let config = pod_config("web", logs.path());
    let pod = client.run_pod(&config).await;
    let script = "echo out; echo err >&2; trap 'exit 7' TERM; while :; do sleep 0.1; done";
    let container = container_spec("main", &image, &["sh", "-c", script]);
    let id = client.run(&pod, &container, &config).await;

    let status = client.status(&id).await;
    assert_eq!(status.state(), ContainerState::ContainerRunning);
    assert!(status.started_at >= status.created_at);

    let (out, err, code) = client
        .exec(&id, &["sh", "-c", "echo $FROM_IMAGE; echo e >&2; exit 3"])
        .await;
    assert_eq!((out.as_str(), err.as_str(), code), ("yes\n", "e\n", 3));

    let log = std::path::Path::new(logs.path()).join("main.log");
    joey_tests::eventually("both lines are in the log", || async {
        std::fs::read_to_string(&log)
            .is_ok_and(|text| text.contains(" stdout F out\n") && text.contains(" stderr F err\n"))
    })
    .await;

    client.stop(&id, 10).await;
    let status = client.status(&id).await;
    assert_eq!(status.state(), ContainerState::ContainerExited);
    assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"));

    client.remove(&id).await;
    client.remove(&id).await;
    client.remove_pod(&pod).await;
    client.remove_pod(&pod).await;
    before.assert_restored(&daemon).await;
}

#[tokio::test]
async fn a_container_s_folders_go_however_deep_they_are() {
    let stand = Stand::start().await;
    let config = stand.pod_config("deep");
    let pod = stand.client.run_pod(&config).await;
    let id = stand
        .client
        .run(&pod, &stand.sleeper("main"), &config)
        .await;
    let writable = stand.daemon.root().join("writable");
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = fs::open(writable.join(&id).join("upper"), flags, Mode::empty()).unwrap();
    for _ in 0..8000 {
        fs::mkdirat(&at, "d", Mode::from_raw_mode(0o755)).unwrap();
        at = fs::openat(&at, "d", flags, Mode::empty()).unwrap();
    }
    drop(at);

    let pid = stand.daemon.pid();
    stand.client.remove_pod(&pod).await;
    // A disk takes its time for as many folders.
    let folders = [writable, stand.daemon.root().join("trash")];
    let deadline = Instant::now() + Duration::from_secs(120);
    while folders
        .iter()
        .any(|folder| folder.read_dir().unwrap().next().is_some())
    {
        assert!(Instant::now() < deadline, "{}", stand.daemon.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(std::path::Path::new(&format!("/proc/{pid}/exe")).exists());
    stand.assert_clean().await;
}
