//! How long attach and detach take; run by hand: `cargo test --test latency -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

mod common;

use std::time::{Duration, Instant};

use common::{detach_request, on_node, port};
use joey_network::{Network, Protocol};

fn median(times: &mut [Duration]) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

#[test]
#[ignore = "a measurement"]
fn attach_and_detach() {
    on_node(|node| async move {
        let network = Network::open(node.config()).await.unwrap();
        for ports in [0, 2] {
            let (mut attach, mut detach) = (Vec::new(), Vec::new());
            for number in 0..50 {
                let mut pod = node.pod(&format!("pod-{ports}-{number}"));
                pod.port_mappings = (0..ports)
                    .map(|at| port(Protocol::Tcp, 8000 + at, 80))
                    .collect();
                let start = Instant::now();
                let attachment = network.attach(pod.clone()).await.unwrap();
                attach.push(start.elapsed());
                let start = Instant::now();
                network
                    .detach(detach_request(&pod, &attachment))
                    .await
                    .unwrap();
                detach.push(start.elapsed());
            }
            println!(
                "{ports} host ports: attach {:?} detach {:?} (median, p99)",
                median(&mut attach),
                median(&mut detach)
            );
        }
        let mut pods = Vec::new();
        for number in 0..50 {
            let pod = node.pod(&format!("held-{number}"));
            network.attach(pod.clone()).await.unwrap();
            pods.push(pod);
        }
        let start = Instant::now();
        for pod in &pods {
            joey_network::netns::interface_stats(&pod.netns).unwrap();
        }
        println!("counters of 50 pods: {:?}", start.elapsed());
    });
}
