//! Workers that start and remove pods as fast as they can.

use std::time::{Duration, Instant};

use futures::future::try_join_all;

use crate::error::BenchError;
use crate::pod::Pod;
use crate::report::Kind;
use crate::side::Side;

use super::{Bench, pause};

const WORKERS: [(usize, Kind, Kind); 3] = [
    (
        2,
        Kind::more("2 workers", "pods/min"),
        Kind::ms("CPU per cycle, 2 workers"),
    ),
    (
        8,
        Kind::more("8 workers", "pods/min"),
        Kind::ms("CPU per cycle, 8 workers"),
    ),
    (
        16,
        Kind::more("16 workers", "pods/min"),
        Kind::ms("CPU per cycle, 16 workers"),
    ),
];

/// Rounds, seconds for each number of workers.
const FULL: (usize, u64) = (3, 6);
const QUICK: (usize, u64) = (1, 4);

pub async fn run(bench: &mut Bench) -> Result<(), BenchError> {
    let (rounds, seconds) = if bench.quick { QUICK } else { FULL };
    bench.report.begin(format!(
        "Pods started and removed by several workers ({rounds} × {seconds} s each)"
    ));
    // A short first round is the warm-up.
    for at in bench.order(1) {
        work(
            &bench.sides[at],
            &bench.images[at],
            2,
            Duration::from_secs(1),
        )
        .await?;
    }
    for (workers, rate, cpu) in WORKERS {
        for round in 0..rounds {
            for at in bench.order(round) {
                pause(300).await;
                let side = &bench.sides[at];
                let before = side.group.cpu_ms()?;
                let time = Duration::from_secs(seconds);
                let (pods, minutes) = work(side, &bench.images[at], workers, time).await?;
                pause(300).await;
                let spent = side.group.cpu_ms()? - before;
                bench.report.add(rate, at, pods / minutes);
                bench.report.add(cpu, at, spent / pods);
            }
        }
    }
    Ok(())
}

/// The pods that were started and removed, and the minutes until the last was gone.
async fn work(
    side: &Side,
    image: &str,
    workers: usize,
    time: Duration,
) -> Result<(f64, f64), BenchError> {
    let begun = Instant::now();
    let worker = || async {
        let mut pods = 0.0;
        while begun.elapsed() < time {
            let (pod, _) = Pod::start(side, image).await?;
            pod.end(side).await?;
            pods += 1.0;
        }
        Ok::<f64, BenchError>(pods)
    };
    let pods = try_join_all((0..workers).map(|_| worker())).await?;
    Ok((pods.iter().sum(), begun.elapsed().as_secs_f64() / 60.0))
}
