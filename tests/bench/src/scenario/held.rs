//! Many pods at once, and a poller that looks at them as a kubelet does.

use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use crate::error::BenchError;
use crate::report::Kind;

use super::holding::{Memory, hold, release};
use super::{Bench, pause};

const PODS: Size = Size {
    pods: 500,
    polls: 20,
};
const QUICK: Size = Size {
    pods: 100,
    polls: 5,
};
struct Size {
    pods: usize,
    polls: u32,
}

const STARTED: Kind = Kind::more("started", "pods/min");
const REMOVED: Kind = Kind::more("removed", "pods/min");
const DAEMON_PSS: Kind = Kind::less("daemon's PSS", "MiB");
const HELPERS_PSS: Kind = Kind::less("helpers' PSS per pod", "MiB");
const CPU: Kind = Kind::less("CPU of daemon and helpers while polled", "ms/s");

pub async fn run(bench: &mut Bench) -> Result<(), BenchError> {
    let size = if bench.quick { QUICK } else { PODS };
    bench.report.begin(format!(
        "{} pods held, polled each second (median / p99)",
        size.pods
    ));
    for at in 0..bench.sides.len() {
        measure(bench, at, &size).await?;
    }
    Ok(())
}

async fn measure(bench: &mut Bench, at: usize, size: &Size) -> Result<(), BenchError> {
    let (side, report) = (&bench.sides[at], &mut bench.report);
    #[allow(clippy::cast_precision_loss)]
    let pods_count = size.pods as f64;
    let begun = Instant::now();
    let pods = hold(side, &bench.images[at], size.pods).await?;
    report.add(
        STARTED,
        at,
        pods_count / begun.elapsed().as_secs_f64() * 60.0,
    );
    pause(3_000).await;

    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    second.tick().await;
    let (cpu, begun) = (side.group.cpu_ms()?, Instant::now());
    for _ in 0..size.polls {
        let (listed, pods_ms) = side.list_pods().await?;
        let (containers, containers_ms) = side.list_containers().await?;
        let ((), status_ms) = side.status().await?;
        let (stats, stats_ms) = side.list_stats().await?;
        if [listed.len(), containers.len(), stats] != [size.pods; 3] {
            let seen = (listed.len(), containers.len(), stats);
            return Err(side.wrong(format!("of {} pods it shows {seen:?}", size.pods)));
        }
        for (name, ms) in [
            ("ListPodSandbox", pods_ms),
            ("ListContainers", containers_ms),
            ("Status", status_ms),
            ("ListContainerStats", stats_ms),
        ] {
            report.add(Kind::ms(name), at, ms);
        }
        second.tick().await;
    }
    let spent = side.group.cpu_ms()? - cpu;
    report.add(CPU, at, spent / begun.elapsed().as_secs_f64());
    let memory = Memory::of(side)?;
    report.add(DAEMON_PSS, at, memory.daemon_mib);
    report.add(HELPERS_PSS, at, memory.helpers_mib / pods_count);

    let begun = Instant::now();
    release(side, pods).await?;
    report.add(
        REMOVED,
        at,
        pods_count / begun.elapsed().as_secs_f64() * 60.0,
    );
    Ok(())
}
