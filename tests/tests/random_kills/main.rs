//! SIGKILL at random times under load: the daemon, shims and their workers are killed while pods
//! come and go. Nothing may be lost, run twice or left.
//!
//! `JOEY_KILLS`: how many times, 30 if not set; `JOEY_SEED`: of what is done at random, printed in
//! any case.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod killer;
mod load;
mod node;
mod pod;

use std::sync::Arc;
use std::time::Instant;

use fastrand::Rng;
use joey_tests::{Bystander, Footprint, Stand, stored};

use killer::Killer;
use node::Node;

/// Who makes pods at the same time.
const WORKERS: usize = 5;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_process_is_killed_at_any_time() {
    let kills = number("JOEY_KILLS").unwrap_or(30);
    let seed = number("JOEY_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("JOEY_KILLS={kills} JOEY_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let mut stand = Stand::start().await;
    let bystander = Bystander::start(&stand).await;
    let before = (Footprint::of(&stand.daemon), stored(&stand.daemon));
    let node = Arc::new(Node::new(&stand, &bystander.pod).await);
    let began = Instant::now();

    let mut load = Vec::new();
    for worker in 0..WORKERS {
        let (node, random) = (Arc::clone(&node), random.fork());
        load.push(tokio::spawn(load::pods(node, worker, random)));
    }
    load.push(tokio::spawn(load::images(Arc::clone(&node))));
    let mut killer = Killer::new(Arc::clone(&node), random);
    for _ in 0..kills {
        killer.kill(&mut stand.daemon).await;
    }
    node.finish();
    for task in load {
        task.await.unwrap();
    }
    stand.client = stand.daemon.client().await;
    println!("{} {:.0} s", node.summary(), began.elapsed().as_secs_f64());

    bystander.assert_untouched(&stand).await;
    let failures = node.failures();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    before.0.assert_restored(&stand.daemon).await;
    joey_tests::eventually("the image store is as before", || async {
        stored(&stand.daemon) == before.1
    })
    .await;
}
