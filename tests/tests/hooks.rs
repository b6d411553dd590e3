//! Hooks that a CDI device brings.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use joey_proto::cri::*;
use joey_tests::{Stand, eventually};
use serde_json::{Value, json};

const FOLDER: &str = "/var/run/cdi";

/// A CDI file of the test's own.
struct Spec(PathBuf);

impl Spec {
    /// One device per list of hooks, `joey.test/hooks=NAME`.
    fn new(devices: &[(&str, Value)]) -> Self {
        let devices: Vec<Value> = devices
            .iter()
            .map(|(name, hooks)| json!({ "name": name, "containerEdits": { "hooks": hooks } }))
            .collect();
        let spec = json!({ "cdiVersion": "0.6.0", "kind": "joey.test/hooks", "devices": devices });
        std::fs::create_dir_all(FOLDER).unwrap();
        let path = Path::new(FOLDER).join(format!("joey-test-{}.json", std::process::id()));
        std::fs::write(&path, spec.to_string()).unwrap();
        Self(path)
    }
}

impl Drop for Spec {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
        // Only where the test made it.
        drop(std::fs::remove_dir(FOLDER));
    }
}

fn shell(point: &str, script: &str) -> Value {
    json!({ "hookName": point, "path": "/bin/sh", "args": ["sh", "-c", script] })
}

fn with_device(mut container: ContainerConfig, name: &str) -> ContainerConfig {
    container.cdi_devices = vec![CdiDevice {
        name: format!("joey.test/hooks={name}"),
    }];
    container
}

#[tokio::test]
async fn hooks_run_in_their_order_and_those_at_the_end_hold_up_nobody() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let log = folder.path().join("log");
    let state = folder.path().join("state");
    let note = |word: &str| format!("echo {word} >> {}", log.display());
    let mut late = shell("poststop", "sleep 1000");
    late["timeout"] = json!(5);
    let hooks = json!([
        shell("poststop", &note("first")),
        shell("createRuntime", &note("created")),
        shell("poststart", &note("started")),
        shell("poststop", "exit 3"),
        late,
        shell(
            "poststop",
            &format!("cat > {}; {}", state.display(), note("last"))
        ),
    ]);
    let _spec = Spec::new(&[("all", hooks)]);
    let stand = Stand::start().await;
    let config = stand.pod_config("web");
    let pod = stand.client.run_pod(&config).await;
    let main = with_device(stand.sleeper("main"), "all");
    let id = stand.client.run(&pod, &main, &config).await;
    let noted = || std::fs::read_to_string(&log).unwrap_or_default();
    assert_eq!(noted(), "created\nstarted\n");
    let begun = std::time::Instant::now();
    stand.client.remove_pod(&pod).await;
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(4),
        "it waits for the late hook"
    );
    eventually("all hooks have run", || async {
        noted() == "created\nstarted\nfirst\nlast\n"
    })
    .await;
    let state: Value = serde_json::from_slice(&std::fs::read(state).unwrap()).unwrap();
    assert_eq!(
        (&state["id"], &state["status"]),
        (&json!(id), &json!("stopped"))
    );
    let failures = stand.daemon.log().matches("a poststop hook failed").count();
    assert_eq!(failures, 2, "the one that failed and the late one");
    stand.assert_clean().await;
}

#[tokio::test]
async fn hooks_that_a_killed_daemon_did_not_run_are_run_at_its_next_start() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let log = folder.path().join("log");
    let hooks = json!([shell(
        "poststop",
        &format!("echo ended >> {}", log.display())
    )]);
    let _spec = Spec::new(&[("end", hooks)]);
    let mut stand = Stand::start().await;
    let config = stand.pod_config("web");
    let pod = stand.client.run_pod(&config).await;
    let main = with_device(stand.container("main", &["sleep", "1"]), "end");
    let id = stand.client.run(&pod, &main, &config).await;
    stand.daemon.kill();
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert!(!log.exists());
    for _ in 0..2 {
        stand.daemon.restart().await;
        stand.client = stand.daemon.client().await;
        assert_eq!(stand.client.ended(&id).await.exit_code, 0);
        eventually("the hook has run", || async { log.exists() }).await;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "ended\n", "once");
        stand.daemon.kill();
    }
    stand.daemon.restart().await;
    stand.client = stand.daemon.client().await;
    stand.client.remove_pod(&pod).await;
    stand.assert_clean().await;
}
