//! The daemon's configuration and signals.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use joey_proto::cri::*;
use joey_tests::{Stand, binary, container_spec, eventually};

/// A daemon whose root, state and configuration are in a folder, until it ends.
fn run(folder: &Path) -> Output {
    Command::new(binary("joeyd"))
        .arg("--config")
        .arg(folder.join("config.toml"))
        .arg("--root")
        .arg(folder.join("root"))
        .arg("--state")
        .arg(folder.join("state"))
        .output()
        .unwrap()
}

#[test]
fn a_wrong_configuration_is_refused_with_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    for (text, named) in [
        ("no_such_key = 1\n", "no_such_key"),
        ("[registry]\nmax_downloads = 1\n", "max_downloads"),
        ("[network]\nmode = \"magic\"\n", "mode"),
        ("shutdown_grace = \"soon\"\n", "shutdown_grace"),
        ("[network]\nsubnets = [\"10.0.0.0/99\"]\n", "subnets"),
    ] {
        std::fs::write(&file, text).unwrap();
        let ended = run(folder.path());
        let error = String::from_utf8(ended.stderr).unwrap();
        assert!(!ended.status.success(), "{text}");
        assert!(error.contains(named), "{text}: {error}");
        assert!(error.contains("config.toml"), "{text}: {error}");
    }
    for (key, text) in [
        ("streaming.max_sessions", "[streaming]\nmax_sessions = 0\n"),
        (
            "streaming.max_sessions",
            "[streaming]\nmax_sessions = 9223372036854775807\n",
        ),
        (
            "streaming.idle_timeout",
            "[streaming]\nidle_timeout = \"0s\"\n",
        ),
        (
            "registry.progress_timeout",
            "[registry]\nprogress_timeout = \"0s\"\n",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let ended = run(folder.path());
        let error = String::from_utf8(ended.stderr).unwrap();
        assert!(
            !ended.status.success() && error.contains(key),
            "{text}: {error}"
        );
    }
    assert!(!folder.path().join("root").exists(), "nothing was made");
}

#[tokio::test]
async fn a_hangup_reads_the_configuration_again() {
    let stand = Stand::start().await;
    let file = stand.daemon.folder().join("config.toml");
    let log = |text: &'static str| {
        let daemon = &stand.daemon;
        eventually(text, move || async move { daemon.log().contains(text) })
    };
    std::fs::write(&file, "[log]\nlevel = \"debug\"\n[limits]\ncalls = 99\n").unwrap();
    stand.daemon.reload();
    log("configuration reloaded").await;
    log("limits.calls").await;
    std::fs::write(&file, "nonsense = 1\n").unwrap();
    stand.daemon.reload();
    log("the old configuration stays").await;
    assert!(stand.daemon.log().contains("nonsense"));
    assert_eq!(stand.client.pull(&stand.image_name).await, stand.image);
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_stopped_daemon_leaves_its_pods_running() {
    let mut stand = Stand::start().await;
    let config = stand.pod_config("web");
    let pod = stand.client.run_pod(&config).await;
    let script = "while :; do echo tick; sleep 0.1; done";
    let main = container_spec("main", &stand.image, &["sh", "-c", script]);
    let id = stand.client.run(&pod, &main, &config).await;
    // A call that stays open does not hold up the end.
    let request = GetEventsRequest::default();
    let events = stand.client.runtime().get_container_events(request).await;

    let ended = stand.daemon.terminate();
    assert!(ended.success(), "{ended}");
    drop(events);
    let log = stand.log("web", "main");
    let length = || std::fs::metadata(&log).unwrap().len();
    let before = length();
    eventually("the container goes on", || async { length() > before }).await;

    stand.daemon.restart().await;
    stand.client = stand.daemon.client().await;
    assert_eq!(
        stand.client.status(&id).await.state(),
        ContainerState::ContainerRunning
    );
    assert_eq!(stand.client.exec(&id, &["echo", "hi"]).await.0, "hi\n");
    stand.client.remove_pod(&pod).await;
    stand.assert_clean().await;
}
