//! `joey update`, and the examples of the pages that tell of it.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use joey_tests::limits::{MIB, bytes, content, in_force, is_v1};
use joey_tests::{Stand, binary};
use serde_json::Value;

fn inspected(stand: &Stand, name: &str) -> Value {
    let shown: Value = serde_json::from_str(&stand.out(&["inspect", name])).unwrap();
    shown[0].clone()
}

#[tokio::test]
async fn limits_change_and_go_and_a_refused_one_changes_nothing() {
    let mut stand = Stand::start().await;
    let image = stand.image_name.clone();
    let run = ["run", "-d", "--name", "web", "-m", "64m", "--cpus", "1"];
    let id = stand.out(&[&run[..], &[&image, "sleep", "1000"]].concat());
    let id = id.trim();
    let change = [
        "update",
        "-m",
        "96m",
        "-c",
        "2048",
        "--cpu-quota",
        "30000",
        "--pids-limit",
        "77",
        "-e",
        "COLOUR=red",
        "web",
    ];
    assert_eq!(stand.out(&change), "web\n");
    let check = || {
        let seen = in_force(id);
        assert_eq!((seen.memory, seen.total), (96 * MIB, 96 * MIB), "{seen:?}");
        assert_eq!((seen.quota, seen.shares), (30_000, 2048), "{seen:?}");
        assert_eq!(content("pids", id, "pids.max"), "77");
    };
    check();
    let command = ["exec", "web", "sh", "-c", "echo $COLOUR"];
    assert_eq!(stand.out(&command), "red\n");
    for (flags, named) in [
        (&["-m", "1m"][..], "memory"),
        (&["--cpu-quota", "7"], "cpu-quota"),
        (&["--memory-swap", "8m"], "swap"),
        (&["--cpuset-cpus", "4000", "-c", "512"], "cpuset.cpus"),
        (&["--device-read-bps", "/dev/null:1m"], "/dev/null"),
        (&["--device-cgroup-rule", "x 1:2 r"], "x 1:2 r"),
        (&["--cpus", "1", "--cpu-period", "5000"], "cpus"),
    ] {
        let (_, error) = stand.fails(&[&["update"], flags, &["web"]].concat());
        assert!(error.contains(named), "{flags:?}: {error}");
        check();
    }
    assert!(
        stand
            .fails(&["update", "-m", "64m", "nobody"])
            .1
            .contains("nobody")
    );
    assert!(stand.fails(&["update", "web"]).1.contains("limit"));
    stand.restart_after(|_| {}).await;
    check();
    let resources = inspected(&stand, "web")["HostConfig"]["Resources"].clone();
    assert_eq!(resources["Base"]["memory_limit"], 64 * MIB, "{resources}");
    let overlay = &resources["Overlays"][0];
    assert_eq!(overlay["reason"], "joey update", "{resources}");
    assert_eq!(
        resources["InForce"]["memory_limit"],
        96 * MIB,
        "{resources}"
    );

    stand.out(&[
        "update",
        "-m",
        "0",
        "--cpu-quota",
        "0",
        "--pids-limit",
        "0",
        "web",
    ]);
    let seen = in_force(id);
    assert_eq!((seen.memory, seen.quota), (-1, -1), "{seen:?}");
    assert_eq!(content("pids", id, "pids.max"), "max");
    // Without a limit of memory there is no swap either, until it is asked for.
    if is_v1() {
        assert_eq!(content("memory", id, "memory.swappiness"), "0");
        stand.out(&["update", "-m", "64m", "--memory-swap", "96m", "web"]);
        assert_eq!(in_force(id).total, 96 * MIB);
        let usual = std::fs::read_to_string("/proc/sys/vm/swappiness").unwrap();
        assert_eq!(content("memory", id, "memory.swappiness"), usual.trim());
        stand.out(&["update", "--device-cgroup-rule", "c 10:200 rw", "web"]);
        assert!(content("devices", id, "devices.list").contains("c 10:200 rw"));
        let reservation = ["update", "--memory-reservation", "32m", "web"];
        stand.out(&reservation);
        let soft = content("memory", id, "memory.soft_limit_in_bytes");
        assert_eq!(bytes(&soft), 32 * MIB);
    }
    stand.out(&["rm", "-f", "web"]);
    stand.assert_clean().await;
}

/// Runs an example of the pages against a stand: what it writes.
fn example(stand: &Stand, name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = binary("joey").parent().unwrap().to_owned();
    let path = std::env::var("PATH").unwrap();
    let run = Command::new(root.join("docs/examples").join(name))
        .arg(&stand.image_name)
        .env("PATH", format!("{}:{path}", folder.display()))
        .env(
            "JOEY_HOST",
            format!("unix://{}", stand.daemon.socket().display()),
        )
        .output()
        .unwrap();
    assert!(run.status.success(), "{name}: {run:?}");
    String::from_utf8(run.stdout).unwrap()
}

#[tokio::test]
async fn the_examples_do_what_their_pages_say() {
    let stand = Stand::start().await;
    let update = example(&stand, "update.sh");
    assert!(update.contains("hello\n"), "{update}");
    assert!(update.contains("joey update"), "{update}");
    let oom = example(&stand, "oom.sh");
    assert!(oom.contains("137\n"), "{oom}");
    assert!(oom.contains("\"name\": \"tail\""), "{oom}");
    assert!(oom.contains("\"group\": \"container\""), "{oom}");
    stand.assert_clean().await;
}
