//! Logs of `joey`'s containers and their rotation.
#![allow(clippy::unwrap_used)]

use std::process::Stdio;

use joey_tests::{Stand, eventually};

/// The files of the only container's log: names and sizes.
fn files(stand: &Stand) -> Vec<(String, u64)> {
    let folder = stand.daemon.root().join("container-logs");
    let folder = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap();
    let mut files: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .flatten()
        .map(|file| {
            let name = file.file_name().to_string_lossy().into_owned();
            (name, file.metadata().unwrap().len())
        })
        .collect();
    files.sort();
    files
}

fn numbers(text: &[u8]) -> Vec<u32> {
    let lines = std::str::from_utf8(text).unwrap().lines();
    lines.map(|line| line.parse().unwrap()).collect()
}

#[tokio::test]
async fn logs_rotate_and_are_read_across_files() {
    let stand = Stand::start().await;
    let script = "seq 1 1600; sleep 0.3; seq 1601 2000";
    let options = ["--log-opt", "max-size=16k", "--log-opt", "max-file=3"];
    let run = [
        &["run", "-d", "--name", "n"],
        &options[..],
        &[&stand.image_name, "sh", "-c", script],
    ];
    stand.out(&run.concat());
    stand.out(&["wait", "n"]);
    let found = files(&stand);
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["container.log", "container.log.1", "container.log.2"]
    );
    assert!(found.iter().all(|(_, size)| *size <= 16 << 10), "{found:?}");
    // What is kept is the end, whole and in order.
    let kept = numbers(&stand.joey(&["logs", "n"]).stdout);
    let first = kept[0];
    assert!(first > 1 && kept.len() > 400, "from {first}");
    assert_eq!(kept, (first..=2000).collect::<Vec<_>>());
    let tail = numbers(&stand.joey(&["logs", "--tail", "700", "n"]).stdout);
    assert_eq!(tail, (1301..=2000).collect::<Vec<_>>());
    // Times are the lines' own, and choose among them.
    let timed = stand.out(&["logs", "-t", "n"]);
    let last = timed.lines().last().unwrap();
    let (time, number) = last.split_once(' ').unwrap();
    let since = numbers(&stand.joey(&["logs", "--since", time, "n"]).stdout);
    assert!(number == "2000" && since.last() == Some(&2000));
    assert!(since.iter().all(|number| *number > 1600), "{since:?}");
    stand.out(&["rm", "n"]);
    let folder = stand.daemon.root().join("container-logs");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_follower_misses_nothing_over_rotations() {
    let stand = Stand::start().await;
    let script = "for n in $(seq 1 3000); do echo $n; test $((n % 100)) = 0 && sleep 0.05; done";
    let options = ["--log-opt", "max-size=16k", "--log-opt", "max-file=20"];
    let run = [
        &["run", "-d", "--name", "n"],
        &options[..],
        &[&stand.image_name, "sh", "-c", script],
    ];
    stand.out(&run.concat());
    let follower = stand
        .joey_command(&["logs", "-f", "n"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let seen = numbers(&follower.wait_with_output().unwrap().stdout);
    assert_eq!(seen, (1..=3000).collect::<Vec<_>>());
    assert!(files(&stand).len() > 5, "{:?}", files(&stand));
    stand.out(&["rm", "n"]);
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_follower_ends_with_the_time_that_it_was_asked_for() {
    let stand = Stand::start().await;
    let script = "while :; do echo on; sleep 0.1; done";
    let image = stand.image_name.as_str();
    stand.out(&["run", "-d", "--name", "c", image, "sh", "-c", script]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let until = (now.unwrap().as_secs() + 2).to_string();
    let seen = stand.out(&["logs", "-f", "--until", &until, "c"]);
    assert!(seen.starts_with("on\n"), "{seen}");
    assert!(stand.out(&["ps"]).contains('c'));
    stand.out(&["rm", "-f", "c"]);
    stand.assert_clean().await;
}

#[tokio::test]
async fn defaults_come_from_the_configuration() {
    let toml = "[containers]\nlog_max_size = \"8KiB\"\nlog_max_files = 2\n";
    let stand = Stand::start_with(toml).await;
    let image = stand.image_name.as_str();
    stand.out(&["run", "--name", "a", image, "seq", "1", "1000"]);
    let found = files(&stand);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|(_, size)| *size <= 8 << 10), "{found:?}");
    stand.out(&["rm", "a"]);
    // Unlimited, and over two lives.
    stand.out(&[
        "run",
        "--name",
        "b",
        "--log-opt",
        "max-size=-1",
        image,
        "seq",
        "1",
        "1000",
    ]);
    stand.out(&["start", "-a", "b"]);
    assert_eq!(files(&stand).len(), 1);
    eventually("all is logged", || async {
        stand.out(&["logs", "b"]).lines().count() == 2000
    })
    .await;
    let (code, error) = stand.fails(&["create", "--log-opt", "max-file=1000", image]);
    assert!(code == 125 && error.contains("1000"), "{error}");
    stand.out(&["rm", "b"]);
    stand.assert_clean().await;
}
