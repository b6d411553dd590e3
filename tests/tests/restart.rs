//! The daemon is killed; its pods are not.
#![allow(clippy::unwrap_used)]

use joey_proto::cri::*;
use joey_tests::{Daemon, Footprint, Registry, busybox, container_spec, pod_config};

#[tokio::test]
async fn containers_outlive_the_daemon_and_exits_meanwhile_are_told() {
    let registry = Registry::start().await;
    let name = registry.push("test/busybox", "latest", busybox()).await;
    let mut daemon = Daemon::start().await;
    let client = daemon.client().await;
    let image = client.pull(&name).await;
    let before = Footprint::of(&daemon);
    let logs = tempfile::tempdir().unwrap();
    let config = pod_config("kept", logs.path());
    let pod = client.run_pod(&config).await;
    let stays = container_spec("stays", &image, &["sleep", "1000"]);
    let stays = client.run(&pod, &stays, &config).await;
    let ends = container_spec("ends", &image, &["sh", "-c", "sleep 1; echo late; exit 5"]);
    let ends = client.run(&pod, &ends, &config).await;
    let pid = client.exec(&stays, &["sh", "-c", "echo $$"]).await;
    assert_eq!(pid.2, 0);

    daemon.kill();
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    daemon.kill_and_restart().await;
    let client = daemon.client().await;

    assert_eq!(
        client.status(&stays).await.state(),
        ContainerState::ContainerRunning
    );
    let ended = client.status(&ends).await;
    assert_eq!(ended.state(), ContainerState::ContainerExited);
    assert_eq!(ended.exit_code, 5);
    let log = std::fs::read_to_string(logs.path().join("ends.log")).unwrap();
    assert!(log.contains("stdout F late\n"), "{log}");
    assert_eq!(client.exec(&stays, &["echo", "alive"]).await.0, "alive\n");

    client.remove_pod(&pod).await;
    before.assert_restored(&daemon).await;
}

#[tokio::test]
async fn a_dead_shim_ends_its_pod_and_no_other() {
    let registry = Registry::start().await;
    let name = registry.push("test/busybox", "latest", busybox()).await;
    let daemon = Daemon::start().await;
    let client = daemon.client().await;
    let image = client.pull(&name).await;
    let before = Footprint::of(&daemon);
    let logs = tempfile::tempdir().unwrap();
    let (lost, kept) = (
        pod_config("lost", logs.path()),
        pod_config("kept", logs.path()),
    );
    let lost_pod = client.run_pod(&lost).await;
    let lost_id = client
        .run(
            &lost_pod,
            &container_spec("a", &image, &["sleep", "1000"]),
            &lost,
        )
        .await;
    let kept_pod = client.run_pod(&kept).await;
    let kept_id = client
        .run(
            &kept_pod,
            &container_spec("b", &image, &["sleep", "1000"]),
            &kept,
        )
        .await;

    let shim = shim_of(&lost_pod);
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    let status = client.ended(&lost_id).await;
    assert_eq!(status.exit_code, 137);
    assert_eq!(
        client.status(&kept_id).await.state(),
        ContainerState::ContainerRunning
    );

    client.remove_pod(&lost_pod).await;
    client.remove_pod(&kept_pod).await;
    before.assert_restored(&daemon).await;
}

fn shim_of(pod: &str) -> rustix::process::Pid {
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        if line.starts_with("joey-shim") && line.contains(pod) {
            return rustix::process::Pid::from_raw(pid).unwrap();
        }
    }
    panic!("no shim of pod {pod}");
}
