//! Logs, attachers and terminals.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use joey_shim_client::proto::Kill;
use joey_shim_client::{AttachStreams, ExecStreams, ShimEvent};

use crate::pod::{Pod, eventually, pipe, process, read_all};

#[tokio::test]
async fn a_renamed_log_is_gone_on_in_a_new_file() {
    let mut pod = Pod::new().await;
    pod.start("c", "echo one; cat /tmp/fifo 2>/dev/null; while ! [ -e /tmp/go ]; do sleep 0.02; done; echo two").await;
    let log = pod.dir.path().join("c/log");
    eventually("the first line", || pod.log("c").contains("one")).await;
    fs::rename(&log, log.with_extension("old")).unwrap();
    pod.shim.reopen_log("c").await.unwrap();
    assert!(log.exists());
    pod.exec("c", "touch /tmp/go").await;
    pod.exit("c").await;
    assert_eq!(pod.log_lines("c"), ["stdout F two"]);
    assert!(pod.shim.reopen_log("c").await.unwrap_err().is_not_running());
    pod.end().await;
}

#[tokio::test]
async fn a_big_output_is_complete_in_the_log_at_the_exit() {
    let mut pod = Pod::new().await;
    pod.run("c", "seq 1 100000").await;
    let lines = pod.log_lines("c");
    assert_eq!(lines.len(), 100_000);
    assert_eq!(lines[99_999], "stdout F 100000");
    pod.end().await;
}

#[tokio::test]
async fn attachers_feed_stdin_and_see_what_follows() {
    let mut pod = Pod::new().await;
    let mut request = pod.request("c", "cat; echo end >&2");
    request.stdin = true;
    request.stdin_once = true;
    pod.shim.start(request).await.unwrap();
    let (stdin, feed) = pipe();
    let (output, stdout) = pipe();
    let (errors, stderr) = pipe();
    let streams = AttachStreams {
        stdin: Some(stdin),
        stdout: Some(stdout),
        stderr: Some(stderr),
    };
    assert!(!pod.shim.attach("c", streams).await.unwrap().terminal);
    fs::File::from(feed).write_all(b"hello\n").unwrap();
    assert_eq!(read_all(output).await, "hello\n");
    assert_eq!(read_all(errors).await, "end\n");
    assert_eq!(pod.exit("c").await.code, 0);
    assert_eq!(pod.log_lines("c"), ["stdout F hello", "stderr F end"]);
    pod.end().await;
}

#[tokio::test]
async fn stdin_stays_open_for_the_next_attacher_until_it_is_closed() {
    let mut pod = Pod::new().await;
    let mut request = pod.request("c", "cat");
    request.stdin = true;
    pod.shim.start(request).await.unwrap();
    for text in ["one\n", "two\n"] {
        let (stdin, feed) = pipe();
        pod.shim
            .attach(
                "c",
                AttachStreams {
                    stdin: Some(stdin),
                    ..AttachStreams::default()
                },
            )
            .await
            .unwrap();
        fs::File::from(feed).write_all(text.as_bytes()).unwrap();
        eventually("the text", || pod.log("c").contains(text.trim())).await;
    }
    pod.shim.close_stdin("c").await.unwrap();
    assert_eq!(pod.exit("c").await.code, 0);
    pod.end().await;
}

#[tokio::test]
async fn a_slow_attacher_is_dropped_and_never_stops_the_container() {
    let mut pod = Pod::new().await;
    let request = pod.request(
        "c",
        "while ! [ -e /tmp/go ]; do sleep 0.02; done; yes | head -c 4000000",
    );
    pod.shim.start(request).await.unwrap();
    let (_unread, stdout) = pipe();
    let attached = pod
        .shim
        .attach(
            "c",
            AttachStreams {
                stdout: Some(stdout),
                ..AttachStreams::default()
            },
        )
        .await
        .unwrap();
    pod.exec("c", "touch /tmp/go").await;
    let dropped = loop {
        match pod.event().await {
            ShimEvent::AttachDropped(dropped) => break dropped,
            ShimEvent::Exit(_) => panic!("never dropped"),
            _ => {}
        }
    };
    assert_eq!(dropped.attach_id, attached.attach_id);
    assert_eq!(pod.exit("c").await.code, 0);
    assert_eq!(pod.log_lines("c").len(), 2_000_000);
    pod.end().await;
}

/// Reads a terminal until `text` comes.
async fn read_until(master: &mut fs::File, text: &str) -> String {
    let mut seen = String::new();
    let mut copy = master.try_clone().unwrap();
    let text = text.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let mut buffer = [0; 1024];
        while !seen.contains(&text) {
            match copy.read(&mut buffer) {
                Ok(got) if got > 0 => seen.push_str(&String::from_utf8_lossy(&buffer[..got])),
                _ => break,
            }
        }
        seen
    });
    tokio::time::timeout(Duration::from_secs(10), read)
        .await
        .expect("the text")
        .unwrap()
}

#[tokio::test]
async fn a_container_with_a_terminal_can_be_resized() {
    let mut pod = Pod::new().await;
    let mut request = pod.request(
        "c",
        "tty; [ -c /dev/console ] && echo console; read x; stty size",
    );
    request.process.as_mut().unwrap().terminal = true;
    request.stdin = true;
    pod.shim.start(request).await.unwrap();
    pod.shim.resize("c", 91, 33).await.unwrap();
    let (stdin, feed) = pipe();
    let attached = pod
        .shim
        .attach(
            "c",
            AttachStreams {
                stdin: Some(stdin),
                ..AttachStreams::default()
            },
        )
        .await;
    assert!(attached.unwrap().terminal);
    fs::File::from(feed).write_all(b"\n").unwrap();
    assert_eq!(pod.exit("c").await.code, 0);
    let log = pod.log("c");
    for text in [
        "stdout F /dev/pts/0\r",
        "stdout F console\r",
        "stdout F 33 91\r",
    ] {
        assert!(log.contains(text), "{log}");
    }
    pod.end().await;
}

#[tokio::test]
async fn an_exec_with_a_terminal_hands_out_the_master() {
    let mut pod = Pod::new().await;
    pod.start("c", "sleep 1000").await;
    let mut with_terminal = process(&["/bin/sh", "-c", "stty size; read x; echo got $x"]);
    with_terminal.terminal = true;
    let request = joey_shim_client::proto::Exec {
        container_id: "c".into(),
        process: Some(with_terminal),
        columns: 80,
        rows: 25,
        ..joey_shim_client::proto::Exec::default()
    };
    let done = pod
        .shim
        .exec(request, ExecStreams::default())
        .await
        .unwrap();
    let mut master = fs::File::from(done.master.unwrap());
    read_until(&mut master, "25 80").await;
    master.write_all(b"word\n").unwrap();
    read_until(&mut master, "got word").await;
    assert_eq!(pod.exec_exit(done.exec_id).await, 0);
    pod.end().await;
}

#[tokio::test]
async fn a_killed_exec_takes_its_group_along() {
    let mut pod = Pod::new().await;
    pod.start("c", "sleep 1000").await;
    let (read, write) = pipe();
    let streams = ExecStreams {
        stdout: Some(write),
        ..ExecStreams::default()
    };
    let script = process(&["/bin/sh", "-c", "sleep 1000 & sleep 1000"]);
    let done = pod.try_exec("c", script, streams).await.unwrap();
    pod.shim
        .kill(Kill {
            exec_id: done.exec_id,
            signal: 9,
            ..Kill::default()
        })
        .await
        .unwrap();
    assert_eq!(pod.exec_exit(done.exec_id).await, 137);
    // The pipe ends only when the group's last process has.
    read_all(read).await;
    pod.end().await;
}

#[tokio::test]
async fn an_exec_reads_its_stdin_to_the_end() {
    let mut pod = Pod::new().await;
    pod.start("c", "sleep 1000").await;
    let (stdin, feed) = pipe();
    let (output, stdout) = pipe();
    let streams = ExecStreams {
        stdin: Some(stdin),
        stdout: Some(stdout),
        stderr: None,
    };
    let done = pod.try_exec("c", process(&["cat"]), streams).await.unwrap();
    let text = "x".repeat(300_000);
    let fed = text.clone();
    let feeding = tokio::task::spawn_blocking(move || feed_all(feed, fed.as_bytes()));
    assert_eq!(read_all(output).await, text);
    feeding.await.unwrap();
    assert_eq!(pod.exec_exit(done.exec_id).await, 0);
    pod.end().await;
}

fn feed_all(fd: OwnedFd, bytes: &[u8]) {
    fs::File::from(fd).write_all(bytes).unwrap();
}
