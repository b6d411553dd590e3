//! ExecSync: output, limits, time-outs.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use joey_proto::cri::*;
use joey_tests::{Stand, container_spec, eventually};
use prost::Message;
use tonic::Code;

const MESSAGE_LIMIT: usize = 16 << 20;

async fn exec(
    node: &Stand,
    id: &str,
    script: &str,
    timeout: i64,
) -> Result<ExecSyncResponse, tonic::Status> {
    let request = ExecSyncRequest {
        container_id: id.into(),
        cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
        timeout,
    };
    let reply = node.client.runtime().exec_sync(request).await?;
    Ok(reply.into_inner())
}

/// A pod and its container, which sleeps.
async fn sleeper(node: &Stand) -> (String, String) {
    let config = node.pod_config("web");
    let pod = node.client.run_pod(&config).await;
    let main = container_spec("main", &node.image, &["sleep", "1000"]);
    let id = node.client.run(&pod, &main, &config).await;
    (pod, id)
}

#[tokio::test]
async fn output_stays_within_one_message() {
    let node = Stand::start().await;
    let (pod, id) = sleeper(&node).await;

    let ten = exec(&node, &id, "head -c 10000000 /dev/zero", 0)
        .await
        .unwrap();
    assert_eq!((ten.stdout.len(), ten.exit_code), (10_000_000, 0));

    let script = "head -c 20000000 /dev/zero; echo too >&2; exit 4";
    let twenty = exec(&node, &id, script, 0).await.unwrap();
    assert!(twenty.encoded_len() < MESSAGE_LIMIT);
    assert!(
        twenty.stdout.len() > MESSAGE_LIMIT / 4,
        "{}",
        twenty.stdout.len()
    );
    assert_eq!(twenty.exit_code, 4, "the command ended on its own");

    let script = "head -c 20000000 /dev/zero & head -c 20000000 /dev/zero >&2; wait";
    let both = exec(&node, &id, script, 0).await.unwrap();
    assert!(both.encoded_len() < MESSAGE_LIMIT);
    assert!(!both.stdout.is_empty() && !both.stderr.is_empty());

    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn a_time_out_kills_the_command() {
    let node = Stand::start().await;
    let (pod, id) = sleeper(&node).await;
    let begun = Instant::now();
    let late = exec(&node, &id, "trap '' TERM; sleep 777", 1)
        .await
        .unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
    let took = begun.elapsed();
    assert!(
        (Duration::from_millis(900)..Duration::from_secs(4)).contains(&took),
        "{took:?}"
    );
    eventually("nothing of the command is left", || async {
        let (left, _, _) = node
            .client
            .exec(&id, &["sh", "-c", "ps | grep '[s]leep 777'"])
            .await;
        left.is_empty()
    })
    .await;
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn a_command_that_starts_after_its_time_out_does_not_stay() {
    let node = Stand::start().await;
    let (pod, id) = sleeper(&node).await;
    let shim = node.daemon.shims()[0];
    let signal = |signal| rustix::process::kill_process(shim, signal).unwrap();
    let descriptors = || {
        let folder = format!("/proc/{}/fd", node.daemon.pid());
        std::fs::read_dir(folder).unwrap().count()
    };
    let before = descriptors();
    signal(rustix::process::Signal::STOP);
    let begun = Instant::now();
    let late = exec(&node, &id, "touch /started; sleep 779", 1).await;
    let took = begun.elapsed();
    signal(rustix::process::Signal::CONT);
    let late = late.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
    assert!(took < Duration::from_secs(4), "{took:?}");
    // In the order of its requests: once this is answered the late one has been started.
    exec(&node, &id, "true", 20).await.unwrap();
    eventually("the late command is gone", || async {
        let (left, _, _) = node
            .client
            .exec(&id, &["sh", "-c", "ps | grep '[s]leep 779'"])
            .await;
        left.is_empty()
    })
    .await;
    eventually("its descriptors are closed", || async {
        descriptors() <= before
    })
    .await;
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn a_grandchild_that_holds_the_pipe_is_not_waited_for() {
    let node = Stand::start().await;
    let (pod, id) = sleeper(&node).await;
    for timeout in [0, 20] {
        let begun = Instant::now();
        let reply = exec(&node, &id, "sleep 60 & echo done; exit 3", timeout)
            .await
            .unwrap();
        assert_eq!(
            (reply.stdout.as_slice(), reply.exit_code),
            (&b"done\n"[..], 3)
        );
        assert!(
            begun.elapsed() < Duration::from_secs(8),
            "{:?}",
            begun.elapsed()
        );
    }
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn what_can_not_be_run_is_told() {
    let node = Stand::start().await;
    let (pod, id) = sleeper(&node).await;
    let run = |id: &str, cmd: &[&str], timeout| {
        let request = ExecSyncRequest {
            container_id: id.into(),
            cmd: cmd.iter().map(|word| (*word).to_owned()).collect(),
            timeout,
        };
        let mut runtime = node.client.runtime();
        async move {
            runtime
                .exec_sync(request)
                .await
                .map(tonic::Response::into_inner)
        }
    };
    let junk = ["sh", "-c", r"printf '\1\2' > /junk && chmod +x /junk"];
    assert_eq!(run(&id, &junk, 0).await.unwrap().exit_code, 0);
    for program in [
        "/no/such/program",
        "no-such-program",
        "/etc",
        "/etc/passwd/x",
        "/junk",
    ] {
        let failed = run(&id, &[program], 0).await.unwrap_err();
        assert_eq!(failed.code(), Code::FailedPrecondition, "{failed}");
        assert!(failed.message().contains(program), "{failed}");
    }
    let empty = run(&id, &[], 0).await.unwrap_err();
    assert_eq!(empty.code(), Code::InvalidArgument, "{empty}");
    let negative = run(&id, &["true"], -1).await.unwrap_err();
    assert_eq!(negative.code(), Code::InvalidArgument, "{negative}");
    let unknown = run("nobody", &["true"], 0).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound, "{unknown}");
    assert_eq!(
        unknown.message().matches("(operation ").count(),
        1,
        "{unknown}"
    );

    node.client.stop(&id, 0).await;
    let stopped = run(&id, &["true"], 0).await.unwrap_err();
    assert_eq!(stopped.code(), Code::FailedPrecondition, "{stopped}");
    node.client.remove_pod(&pod).await;
    let gone = run(&id, &["true"], 0).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound, "{gone}");
    node.assert_clean().await;
}

#[tokio::test]
async fn a_hundred_at_once() {
    let node = Stand::start().await;
    let (pod, id) = sleeper(&node).await;
    let calls = (0..100).map(|n| {
        let (node, id) = (&node, &id);
        async move {
            let reply = exec(node, id, &format!("echo {n}; exit {n}"), 60)
                .await
                .unwrap();
            assert_eq!(reply.exit_code, n);
            assert_eq!(reply.stdout, format!("{n}\n").into_bytes());
        }
    });
    futures::future::join_all(calls).await;
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}
