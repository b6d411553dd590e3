//! Latencies, printed; run by hand: `cargo test -p joey-shim-client -- --ignored --nocapture latencies`.

use std::time::{Duration, Instant};

use joey_shim_client::{ExecStreams, Shim};

use crate::pod::{Pod, binary, pipe, pod_request, process, read_all};

const ROUNDS: usize = 50;

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let (median, p95) = (times[times.len() / 2], times[times.len() * 95 / 100]);
    println!(
        "{what}: median {median:?}, p95 {p95:?}, least {:?}",
        times[0]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn latencies() {
    let program = binary();
    let (mut spawns, mut pods) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let dir = tempfile::tempdir().unwrap();
        let begin = Instant::now();
        let shim = Shim::spawn(&program, "pod", dir.path()).await.unwrap();
        spawns.push(begin.elapsed());
        let begin = Instant::now();
        shim.start_pod(pod_request()).await.unwrap();
        pods.push(begin.elapsed());
        shim.shutdown(true).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    print("spawn", spawns);
    print("StartPod", pods);

    let mut pod = Pod::new().await;
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let mut request = pod.request(&format!("c{round}"), "");
        request.process = Some(process(&["/bin/true"]));
        tokio::time::sleep(Duration::from_millis(25)).await;
        let begin = Instant::now();
        pod.shim.start(request).await.unwrap();
        starts.push(begin.elapsed());
        pod.exit(&format!("c{round}")).await;
        ends.push(begin.elapsed());
    }
    print("Start", starts);
    print("Start to exit", ends);

    pod.start("held", "sleep 1000").await;
    let (mut execs, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        tokio::time::sleep(Duration::from_millis(25)).await;
        let (read, write) = pipe();
        let begin = Instant::now();
        let streams = ExecStreams {
            stdout: Some(write),
            ..ExecStreams::default()
        };
        let done = pod
            .try_exec("held", process(&["/bin/true"]), streams)
            .await
            .unwrap();
        execs.push(begin.elapsed());
        read_all(read).await;
        pod.exec_exit(done.exec_id).await;
        ends.push(begin.elapsed());
    }
    print("Exec", execs);
    print("Exec to exit", ends);

    let smaps = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", pod.shim.pid())).unwrap();
    println!(
        "{}",
        smaps
            .lines()
            .filter(|l| l.starts_with("Pss") || l.starts_with("Rss"))
            .collect::<Vec<_>>()
            .join("\n")
    );
    pod.end().await;
}
