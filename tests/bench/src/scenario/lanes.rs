//! Whether a pull and a lot of execs make the other calls wait.

use std::cell::Cell;
use std::time::Duration;

use futures::future::{join_all, try_join3};
use tokio::time::MissedTickBehavior;

use crate::error::BenchError;
use crate::pod::Pod;
use crate::report::{Kind, Report};
use crate::side::Side;
use crate::stats::Samples;

use super::holding::{hold, release};
use super::{Bench, pause};

const IMAGE: &str = "registry.k8s.io/joey/bench-1g:latest";
/// Pods that take the execs, each every `PERIOD`: 50 per second.
const PODS: u32 = 10;
const PERIOD: Duration = Duration::from_millis(200);

struct Phase {
    run: Kind,
    exec: Kind,
}
const IDLE: Phase = Phase {
    run: Kind::ms("RunPodSandbox, idle"),
    exec: Kind::ms("ExecSync, idle"),
};
const LOADED: Phase = Phase {
    run: Kind::ms("RunPodSandbox, loaded"),
    exec: Kind::ms("ExecSync, loaded"),
};
const RUN_P99: Kind = Kind::less("RunPodSandbox: p99 loaded ÷ idle", "×");
const EXEC_P99: Kind = Kind::less("ExecSync: p99 loaded ÷ idle", "×");
const PULL: Kind = Kind::less("pull of 1 GB meanwhile", "s");
const EXECS: Kind = Kind::more("execs meanwhile", "1/s");

/// Pods started and execs made in the idle phase, pulls in the loaded one.
const FULL: (usize, usize) = (100, 5);
const QUICK: (usize, usize) = (20, 1);

pub async fn run(bench: &mut Bench) -> Result<(), BenchError> {
    let (samples, pulls) = if bench.quick { QUICK } else { FULL };
    bench.report.begin(format!(
        "Calls during pulls of 1 GB ({pulls}) and 50 execs per second (median / p99)"
    ));
    for at in 0..bench.sides.len() {
        let (side, image, report) = (&bench.sides[at], &bench.images[at], &mut bench.report);
        let held = hold(side, image, PODS as usize).await?;
        let mut idle = Latencies::default();
        for _ in 0..samples {
            idle.sample(side, image).await?;
        }
        pause(1_000).await;
        let loaded = under_load(side, image, &held, pulls, report, at).await?;
        for (phase, measured) in [(IDLE, &idle), (LOADED, &loaded)] {
            for ms in measured.run.values() {
                report.add(phase.run, at, *ms);
            }
            for ms in measured.exec.values() {
                report.add(phase.exec, at, *ms);
            }
        }
        for (kind, idle, loaded) in [
            (RUN_P99, &idle.run, &loaded.run),
            (EXEC_P99, &idle.exec, &loaded.exec),
        ] {
            if let (Some(idle), Some(loaded)) = (idle.p99(), loaded.p99()) {
                report.add(kind, at, loaded / idle);
            }
        }
        release(side, held).await?;
    }
    Ok(())
}

/// What one caller sees who starts pods and executes commands in them.
#[derive(Default)]
struct Latencies {
    run: Samples,
    exec: Samples,
}

impl Latencies {
    async fn sample(&mut self, side: &Side, image: &str) -> Result<(), BenchError> {
        let (pod, started) = Pod::start(side, image).await?;
        self.run.add(started.run);
        for _ in 0..3 {
            let ((), ms) = side.exec(&pod.container).await?;
            self.exec.add(ms);
        }
        pod.end(side).await.map(drop)
    }
}

/// The same caller's latencies while others pull an image again and again and execute commands.
async fn under_load(
    side: &Side,
    image: &str,
    held: &[Pod],
    pulls: usize,
    report: &mut Report,
    at: usize,
) -> Result<Latencies, BenchError> {
    let pulling = Cell::new(true);
    let pull = async {
        for _ in 0..pulls {
            rustix::fs::sync();
            let (_, ms) = side.pull(IMAGE).await?;
            report.add(PULL, at, ms / 1e3);
            side.remove_image(IMAGE).await?;
        }
        pulling.set(false);
        Ok::<_, BenchError>(())
    };
    let execs = async {
        let begun = std::time::Instant::now();
        let done = join_all(held.iter().map(|pod| exec_while(side, pod, &pulling))).await;
        let done: Result<Vec<f64>, BenchError> = done.into_iter().collect();
        Ok(done?.iter().sum::<f64>() / begun.elapsed().as_secs_f64())
    };
    let caller = async {
        let mut latencies = Latencies::default();
        while pulling.get() {
            latencies.sample(side, image).await?;
        }
        Ok(latencies)
    };
    let ((), rate, latencies) = try_join3(pull, execs, caller).await?;
    report.add(EXECS, at, rate);
    Ok(latencies)
}

async fn exec_while(side: &Side, pod: &Pod, pulling: &Cell<bool>) -> Result<f64, BenchError> {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut done = 0.0;
    while pulling.get() {
        ticks.tick().await;
        side.exec(&pod.container).await?;
        done += 1.0;
    }
    Ok(done)
}
