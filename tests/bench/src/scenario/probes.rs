//! A hundred exec probes per second, as kubelets send them: each container's one after the other.

use std::time::{Duration, Instant};

use futures::future::try_join_all;
use tokio::time::MissedTickBehavior;

use crate::error::BenchError;
use crate::pod::Pod;
use crate::report::Kind;
use crate::side::Side;

use super::holding::{hold, release};
use super::{Bench, pause};

const PODS: u32 = 50;
const PERIOD: Duration = Duration::from_millis(500);

/// Rounds, seconds of probing in each.
const FULL: (usize, u64) = (3, 15);
const QUICK: (usize, u64) = (1, 5);

pub async fn run(bench: &mut Bench) -> Result<(), BenchError> {
    let (rounds, seconds) = if bench.quick { QUICK } else { FULL };
    bench.report.begin(format!(
        "{PODS} containers, each with an exec probe every {} ms (median / p99)",
        PERIOD.as_millis()
    ));
    let mut held = Vec::new();
    for (side, image) in bench.sides.iter().zip(&bench.images) {
        held.push(hold(side, image, PODS as usize).await?);
    }
    let time = Duration::from_secs(seconds);
    for round in 0..rounds {
        for at in bench.order(round) {
            pause(1_000).await;
            let (side, report) = (&bench.sides[at], &mut bench.report);
            let cpu = side.group.cpu_ms()?;
            let latencies = probe_all(side, &held[at], time).await?;
            let spent = side.group.cpu_ms()? - cpu;
            #[allow(clippy::cast_precision_loss)]
            let done = latencies.len() as f64;
            report.add(Kind::more("probes", "1/s"), at, done / time.as_secs_f64());
            report.add(Kind::ms("CPU per probe"), at, spent / done);
            for ms in latencies {
                report.add(Kind::ms("ExecSync"), at, ms);
            }
        }
    }
    for (side, pods) in bench.sides.iter().zip(held) {
        release(side, pods).await?;
    }
    Ok(())
}

/// Probes all containers, evenly spread; the probes' latencies.
async fn probe_all(side: &Side, pods: &[Pod], time: Duration) -> Result<Vec<f64>, BenchError> {
    let begun = Instant::now();
    let mut first = tokio::time::Instant::now();
    let all = pods.iter().map(|pod| {
        first += PERIOD / PODS;
        let mut ticks = tokio::time::interval_at(first, PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        async move {
            let mut latencies = Vec::new();
            ticks.tick().await;
            while begun.elapsed() < time {
                latencies.push(side.exec(&pod.container).await?.1);
                ticks.tick().await;
            }
            Ok::<_, BenchError>(latencies)
        }
    });
    Ok(try_join_all(all).await?.into_iter().flatten().collect())
}
