//! The thinnest line: pull, run, logs, exec, stop, remove.
#![allow(clippy::unwrap_used)]

use joey_proto::cri::*;
use joey_tests::{Daemon, Footprint, Registry, busybox, container_spec, pod_config};

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
