//! Pods that do nothing: what they cost, and what it costs to look at them.

use crate::error::BenchError;
use crate::pod::Pod;
use crate::report::Kind;
use crate::side::Side;

use super::holding::{Memory, hold, release};
use super::{Bench, pause};

const PODS: usize = 50;
/// Calls in a row before it is the next side's turn.
const CALLS: usize = 10;

const HELPERS_PSS: Kind = Kind::less("helpers' PSS per pod", "MiB");
const DAEMON_PSS: Kind = Kind::less("daemon's PSS", "MiB");
const HELPERS: Kind = Kind::less("helper processes per pod", "");
const CPU: Kind = Kind::less("CPU of daemon and helpers", "ms/s");

struct Size {
    settle_ms: u64,
    windows: usize,
    window_ms: u64,
    rounds: usize,
}
const FULL: Size = Size {
    settle_ms: 15_000,
    windows: 3,
    window_ms: 10_000,
    rounds: 20,
};
const QUICK: Size = Size {
    settle_ms: 3_000,
    windows: 1,
    window_ms: 5_000,
    rounds: 5,
};

pub async fn run(bench: &mut Bench) -> Result<(), BenchError> {
    let size = if bench.quick { QUICK } else { FULL };
    bench
        .report
        .begin(format!("{PODS} idle pods (median / p99)"));
    let mut held = Vec::new();
    for (side, image) in bench.sides.iter().zip(&bench.images) {
        held.push(hold(side, image, PODS).await?);
    }
    pause(size.settle_ms).await;
    // Idle is idle: all sides at the same time.
    for _ in 0..size.windows {
        let before = cpu(&bench.sides)?;
        pause(size.window_ms).await;
        let after = cpu(&bench.sides)?;
        for (at, (before, after)) in before.iter().zip(after).enumerate() {
            #[allow(clippy::cast_precision_loss)]
            let seconds = size.window_ms as f64 / 1e3;
            bench.report.add(CPU, at, (after - before) / seconds);
        }
    }
    for (at, side) in bench.sides.iter().enumerate() {
        let memory = Memory::of(side)?;
        bench.report.add(DAEMON_PSS, at, memory.daemon_mib);
        bench.report.add(HELPERS_PSS, at, memory.helpers_mib / 50.0);
        bench.report.add(HELPERS, at, memory.helpers / 50.0);
    }
    for round in 0..size.rounds {
        for at in bench.order(round) {
            look(bench, at, &held[at]).await?;
        }
    }
    for (side, pods) in bench.sides.iter().zip(held) {
        release(side, pods).await?;
    }
    Ok(())
}

/// Calls that look at all pods, and one that looks into one.
async fn look(bench: &mut Bench, at: usize, pods: &[Pod]) -> Result<(), BenchError> {
    let side = &bench.sides[at];
    let report = &mut bench.report;
    for call in 0..CALLS {
        let (stats, stats_ms) = side.list_stats().await?;
        let (containers, containers_ms) = side.list_containers().await?;
        let (listed, pods_ms) = side.list_pods().await?;
        if [stats, containers.len(), listed.len()] != [pods.len(); 3] {
            return Err(side.wrong(format!(
                "of {} pods it lists {}, {} containers and the statistics of {stats}",
                pods.len(),
                listed.len(),
                containers.len()
            )));
        }
        let pod = &pods[call % pods.len()];
        let ((), status_ms) = side.pod_status(&pod.id).await?;
        let ((), exec_ms) = side.exec(&pod.container).await?;
        for (name, ms) in [
            ("ListContainerStats", stats_ms),
            ("ListContainers", containers_ms),
            ("ListPodSandbox", pods_ms),
            ("PodSandboxStatus", status_ms),
            ("ExecSync", exec_ms),
        ] {
            report.add(Kind::ms(name), at, ms);
        }
    }
    Ok(())
}

fn cpu(sides: &[Side]) -> Result<Vec<f64>, BenchError> {
    sides.iter().map(|side| side.group.cpu_ms()).collect()
}
