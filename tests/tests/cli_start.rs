//! `joey start` and `joey rm`: by several at once, by clients that leave, after a killed daemon.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::{Duration, Instant};

use joey_tests::{Stand, eventually, piped};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

/// Runs a container whose first life is short and whose others are long.
fn ended(stand: &Stand, name: &str, first_life: &str) {
    let script = format!("test -e /first && exec sleep 1000; touch /first; {first_life}");
    let image = stand.image_name.as_str();
    stand.out(&["run", "-d", "--name", name, image, "sh", "-c", &script]);
    stand.out(&["wait", name]);
}

#[tokio::test]
async fn starts_at_once_wait_for_the_first_alone() {
    let stand = Stand::start().await;
    ended(&stand, "c", "true");
    let begun = Instant::now();
    let starts: Vec<_> = (0..4)
        .map(|_| piped(&mut stand.joey_command(&["start", "c"])))
        .collect();
    for start in starts {
        let ended = start.wait_with_output().unwrap();
        assert_eq!(ended.stdout, b"c\n", "{ended:?}");
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(stand.out(&["ps"]).contains('c'));
    stand.out(&["rm", "-f", "c"]);
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_client_that_leaves_stops_no_start() {
    let stand = Stand::start().await;
    ended(&stand, "c", "yes | head -n 3000000");
    // One that does not read holds the former life: the start waits for it.
    let mut reader = piped(&mut stand.joey_command(&["logs", "c"]));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut client = piped(&mut stand.joey_command(&["start", "c"]));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!stand.out(&["ps"]).contains('c'), "the start is under way");
    client.kill().unwrap();
    client.wait().unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    reader.kill().unwrap();
    reader.wait().unwrap();
    eventually("it runs", || async { stand.out(&["ps"]).contains('c') }).await;
    stand.out(&["rm", "-f", "c"]);
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_client_that_leaves_stops_no_removal() {
    let stand = Stand::start().await;
    let image = stand.image_name.as_str();
    stand.out(&["run", "-d", "--name", "c", image, "sleep", "1000"]);
    let shims = stand.daemon.shims();
    let all = |signal| {
        for shim in &shims {
            kill_process(*shim, signal).unwrap();
        }
    };
    all(Signal::STOP);
    let mut client = piped(&mut stand.joey_command(&["rm", "-f", "c"]));
    tokio::time::sleep(Duration::from_millis(500)).await;
    client.kill().unwrap();
    client.wait().unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(
        stand.out(&["ps", "-a"]).contains('c'),
        "the removal is under way"
    );
    all(Signal::CONT);
    eventually("it is gone", || async {
        stand.out(&["ps", "-a", "-q"]).is_empty()
    })
    .await;
    stand.assert_clean().await;
}

#[tokio::test]
async fn logs_without_a_container_are_swept_and_no_other() {
    let mut stand = Stand::start().await;
    ended(&stand, "c", "echo written");
    let logs = stand.daemon.root().join("container-logs");
    let (orphan, foreign) = (logs.join("0123456789abcdef".repeat(2)), logs.join("notes"));
    stand
        .restart_after(|_| {
            for folder in [&orphan, &foreign] {
                fs::create_dir(folder).unwrap();
                fs::write(folder.join("container.log"), "").unwrap();
            }
        })
        .await;
    eventually("it is swept", || async { !orphan.exists() }).await;
    assert!(foreign.join("container.log").exists());
    assert_eq!(stand.out(&["logs", "c"]), "written\n");
    fs::remove_dir_all(foreign).unwrap();
    stand.out(&["rm", "c"]);
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_layer_that_was_mounted_volatile_is_used_again_within_one_boot() {
    let mut stand = Stand::start().await;
    ended(&stand, "c", "true");
    let id = stand.out(&["ps", "-aq", "--no-trunc"]);
    let work = stand
        .daemon
        .root()
        .join("writable")
        .join(id.trim())
        .join("work/work");
    // As the kernel leaves it.
    let mark = work.join("incompat/volatile");
    fs::create_dir_all(&mark).unwrap();
    assert_eq!(stand.out(&["start", "c"]), "c\n");
    assert!(!mark.exists());
    stand.out(&["stop", "-t", "0", "c"]);

    fs::create_dir_all(&mark).unwrap();
    stand
        .restart_after(|daemon| {
            for file in fs::read_dir(daemon.root().join("pods")).unwrap().flatten() {
                let mut record: Value =
                    serde_json::from_slice(&fs::read(file.path()).unwrap()).unwrap();
                record["boot_id"] = "another".into();
                fs::write(file.path(), record.to_string()).unwrap();
            }
        })
        .await;
    for _ in 0..2 {
        let (code, error) = stand.fails(&["start", "c"]);
        assert!(
            code == 1 && error.contains("may have lost writes"),
            "{error}"
        );
    }
    assert!(mark.exists());
    stand.out(&["rm", "c"]);
    stand.assert_clean().await;
}
