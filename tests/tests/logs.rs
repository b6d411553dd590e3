//! Container logs: format, splitting, rotation.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use joey_proto::cri::*;
use joey_tests::{Stand, container_spec, eventually};

/// A line of a log file.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    stream: String,
    whole: bool,
    text: String,
}

/// Panics unless every line is as CRI defines it.
fn lines(path: &Path) -> Vec<Line> {
    let bytes = std::fs::read(path).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "a torn line");
    text.split_terminator('\n').map(line).collect()
}

fn line(line: &str) -> Line {
    let mut parts = line.splitn(4, ' ');
    let time = parts.next().unwrap();
    assert!(is_time(time), "{line}");
    let stream = parts.next().unwrap().to_owned();
    assert!(["stdout", "stderr"].contains(&stream.as_str()), "{line}");
    let tag = parts.next().unwrap();
    assert!(["P", "F"].contains(&tag), "{line}");
    Line {
        stream,
        whole: tag == "F",
        text: parts.next().unwrap().to_owned(),
    }
}

/// `2006-01-02T15:04:05.999999999Z`, with a zone or without a fraction too.
fn is_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 20
        && bytes[4] == b'-'
        && bytes[10] == b'T'
        && bytes[13] == b':'
        && (text.ends_with('Z') || text[19..].contains(['+', '-']))
}

async fn reopen(node: &Stand, id: &str) -> Result<(), tonic::Status> {
    let request = ReopenContainerLogRequest {
        container_id: id.into(),
    };
    let mut runtime = node.client.runtime();
    runtime.reopen_container_log(request).await.map(drop)
}

#[tokio::test]
async fn lines_streams_and_split_lines() {
    let node = Stand::start().await;
    let config = node.pod_config("web");
    let pod = node.client.run_pod(&config).await;
    // 40000 = 16384 + 16384 + 7232; then an empty line, and an end without a line's end.
    let script = "head -c 40000 /dev/zero | tr '\\0' x; echo; echo; sleep 0.2; echo err >&2; \
        sleep 0.2; printf end";
    let main = container_spec("main", &node.image, &["sh", "-c", script]);
    let id = node.client.run(&pod, &main, &config).await;
    node.client.ended(&id).await;

    let lines = lines(&node.log("web", "main"));
    let got: Vec<_> = lines
        .iter()
        .map(|line| (line.stream.as_str(), line.whole, line.text.len()))
        .collect();
    assert_eq!(
        got,
        [
            ("stdout", false, 16384),
            ("stdout", false, 16384),
            ("stdout", true, 7232),
            ("stdout", true, 0),
            ("stderr", true, 3),
            ("stdout", false, 3),
        ]
    );

    node.client.remove_pod(&pod).await;
    assert!(
        node.log("web", "main").exists(),
        "the log's end is the kubelet's business"
    );
    node.assert_clean().await;
}

#[tokio::test]
async fn with_a_terminal_everything_is_standard_output() {
    let node = Stand::start().await;
    let config = node.pod_config("web");
    let pod = node.client.run_pod(&config).await;
    let mut main = container_spec("main", &node.image, &["sh", "-c", "echo a; echo b >&2"]);
    main.tty = true;
    let id = node.client.run(&pod, &main, &config).await;
    node.client.ended(&id).await;
    let lines = lines(&node.log("web", "main"));
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines.iter().all(|line| line.stream == "stdout"));
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn rotation_under_load_loses_no_line() {
    let node = Stand::start().await;
    let config = node.pod_config("web");
    let pod = node.client.run_pod(&config).await;
    let count = 300_000;
    let script = format!("i=0; while [ $i -lt {count} ]; do echo $i; i=$((i+1)); done");
    let main = container_spec("main", &node.image, &["sh", "-c", &script]);
    let id = node.client.run(&pod, &main, &config).await;

    let log = node.log("web", "main");
    let mut rotated = Vec::new();
    while node.client.status(&id).await.state() == ContainerState::ContainerRunning {
        let old = log.with_extension(format!("log.{}", rotated.len()));
        std::fs::rename(&log, &old).unwrap();
        match reopen(&node, &id).await {
            Ok(()) => assert!(log.exists(), "there is a file when the call returns"),
            // It ended meanwhile.
            Err(_) => drop(
                std::fs::File::options()
                    .append(true)
                    .create(true)
                    .open(&log),
            ),
        }
        rotated.push(old);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    node.client.ended(&id).await;
    assert!(rotated.len() > 3, "only {} rotations", rotated.len());

    rotated.push(log);
    let text: Vec<_> = rotated.iter().flat_map(|file| lines(file)).collect();
    assert!(text.iter().all(|line| line.whole));
    assert_eq!(text.len(), count);
    for (n, line) in text.iter().enumerate() {
        assert_eq!(line.text, n.to_string());
    }
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn reopening_makes_no_folder_and_needs_a_running_container() {
    let node = Stand::start().await;
    let config = node.pod_config("web");
    let pod = node.client.run_pod(&config).await;
    let script = "while :; do echo tick; sleep 0.1; done";
    let main = container_spec("main", &node.image, &["sh", "-c", script]);
    let id = node.client.run(&pod, &main, &config).await;

    let log = node.log("web", "main");
    let folder = log.parent().unwrap();
    let moved = folder.with_extension("moved");
    std::fs::rename(folder, &moved).unwrap();
    let failed = reopen(&node, &id).await.unwrap_err();
    assert_eq!(failed.code(), tonic::Code::FailedPrecondition, "{failed}");
    for named in [&id, log.to_str().unwrap()] {
        assert!(failed.message().contains(named), "{failed}");
    }
    assert!(!folder.exists(), "reopening creates no folder");
    // The old file is written on.
    let old = moved.join("main.log");
    let length = || std::fs::metadata(&old).unwrap().len();
    let before = length();
    eventually("the log goes on", || async { length() > before }).await;
    std::fs::rename(&moved, folder).unwrap();
    reopen(&node, &id).await.unwrap();

    node.client.stop(&id, 0).await;
    let failed = reopen(&node, &id).await.unwrap_err();
    assert_eq!(failed.code(), tonic::Code::FailedPrecondition, "{failed}");
    let unknown = reopen(&node, "no-such-container").await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound, "{unknown}");
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn large_output_arrives_whole() {
    let node = Stand::start().await;
    let config = node.pod_config("web");
    let pod = node.client.run_pod(&config).await;
    let script = "yes 0123456789abcdef | head -n 2000000";
    let main = container_spec("main", &node.image, &["sh", "-c", script]);
    let id = node.client.run(&pod, &main, &config).await;
    node.client.ended(&id).await;
    let lines = lines(&node.log("web", "main"));
    assert_eq!(lines.len(), 2_000_000);
    assert!(
        lines
            .iter()
            .all(|line| line.whole && line.text == "0123456789abcdef")
    );
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}
