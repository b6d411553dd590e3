//! One pod after the other: each call's latency, the whole cycle, the CPU time it costs.

use crate::error::BenchError;
use crate::pod::Pod;
use crate::report::{Kind, Report};
use crate::side::Side;

use super::{Bench, pause};

const POD_START: Kind = Kind::ms("pod start (Run + Create + Start)");
const CYCLE: Kind = Kind::ms("whole cycle, start to removal");
const CPU: Kind = Kind::ms("CPU per cycle");
/// What a runtime does after it has answered belongs to the cycle's CPU time.
const SETTLE_MS: u64 = 300;
/// Calls on one running pod, in each round.
const OBSERVATIONS: usize = 10;

/// Rounds, cycles in each.
const FULL: (usize, usize) = (15, 6);
const QUICK: (usize, usize) = (4, 4);

pub async fn run(bench: &mut Bench) -> Result<(), BenchError> {
    let (rounds, cycles) = if bench.quick { QUICK } else { FULL };
    bench.report.begin(format!(
        "One pod at a time ({} cycles each; median / p99)",
        rounds * cycles
    ));
    // Round 0 is the warm-up.
    for round in 0..=rounds {
        for at in bench.order(round) {
            let mut unused = Report::new(bench.report.sides().to_vec());
            let report = if round == 0 {
                &mut unused
            } else {
                &mut bench.report
            };
            let (side, image) = (&bench.sides[at], &bench.images[at]);
            lives(side, image, cycles, report, at).await?;
            observe(side, image, report, at).await?;
        }
    }
    Ok(())
}

/// Pods that live for their life's calls only.
async fn lives(
    side: &Side,
    image: &str,
    cycles: usize,
    report: &mut Report,
    at: usize,
) -> Result<(), BenchError> {
    pause(SETTLE_MS).await;
    let cpu = side.group.cpu_ms()?;
    let mut done = 0.0;
    for _ in 0..cycles {
        let (pod, started) = Pod::start(side, image).await?;
        let ended = pod.end(side).await?;
        report.add(POD_START, at, started.total());
        report.add(CYCLE, at, started.total() + ended.total());
        for (name, ms) in [
            ("RunPodSandbox", started.run),
            ("CreateContainer", started.create),
            ("StartContainer", started.start),
            ("StopContainer(0)", ended.stop),
            ("StopPodSandbox", ended.stop_pod),
            ("RemoveContainer", ended.remove),
            ("RemovePodSandbox", ended.remove_pod),
        ] {
            report.add(Kind::ms(name), at, ms);
        }
        done += 1.0;
    }
    pause(SETTLE_MS).await;
    report.add(CPU, at, (side.group.cpu_ms()? - cpu) / done);
    Ok(())
}

/// The calls that change nothing, on a pod that runs.
async fn observe(
    side: &Side,
    image: &str,
    report: &mut Report,
    at: usize,
) -> Result<(), BenchError> {
    let (pod, _) = Pod::start(side, image).await?;
    for _ in 0..OBSERVATIONS {
        let ((), exec) = side.exec(&pod.container).await?;
        let ((), status) = side.pod_status(&pod.id).await?;
        let (_, list) = side.list_containers().await?;
        report.add(Kind::ms("ExecSync"), at, exec);
        report.add(Kind::ms("PodSandboxStatus"), at, status);
        report.add(Kind::ms("ListContainers"), at, list);
    }
    pod.end(side).await.map(drop)
}
