//! Many pods one after the other: whether the thousandth costs what the first did.

use crate::error::BenchError;
use crate::pod::Pod;
use crate::report::{Kind, Report};
use crate::side::Side;
use crate::usage::{descriptors, pss_kib, space};

use super::Bench;

const BLOCK: usize = 50;
const WARM_UP: usize = 10;
/// How many of the first and of the last cycles are compared.
const SHARE: usize = 100;

const FULL: usize = 1_000;
const QUICK: usize = 250;

/// When something was measured.
#[derive(Clone, Copy)]
struct Stage {
    cycle: Kind,
    memory: Kind,
    descriptors: Kind,
    files: Kind,
}
const FIRST: Stage = Stage {
    cycle: Kind::ms("whole cycle, the first 100"),
    memory: Kind::less("daemon's PSS after 100", "MiB"),
    descriptors: Kind::less("daemon's descriptors after 100", ""),
    files: Kind::less("files after 100", ""),
};
const LAST: Stage = Stage {
    cycle: Kind::ms("whole cycle, the last 100"),
    memory: Kind::less("daemon's PSS at the end", "MiB"),
    descriptors: Kind::less("daemon's descriptors at the end", ""),
    files: Kind::less("files at the end", ""),
};

pub async fn run(bench: &mut Bench) -> Result<(), BenchError> {
    let cycles = if bench.quick { QUICK } else { FULL };
    bench
        .report
        .begin(format!("{cycles} pods one after the other (median / p99)"));
    for (side, image) in bench.sides.iter().zip(&bench.images) {
        for _ in 0..WARM_UP {
            let (pod, _) = Pod::start(side, image).await?;
            pod.end(side).await?;
        }
    }
    for block in 0..cycles / BLOCK {
        let done = block * BLOCK;
        let stage = if done < SHARE {
            Some(FIRST)
        } else if done >= cycles - SHARE {
            Some(LAST)
        } else {
            None
        };
        for at in bench.order(block) {
            let (side, image) = (&bench.sides[at], &bench.images[at]);
            for _ in 0..BLOCK {
                let (pod, started) = Pod::start(side, image).await?;
                let ended = pod.end(side).await?;
                if let Some(stage) = stage {
                    let ms = started.total() + ended.total();
                    bench.report.add(stage.cycle, at, ms);
                }
            }
            if let Some(stage) = stage
                && (done + BLOCK).is_multiple_of(SHARE)
            {
                holdings(side, stage, &mut bench.report, at)?;
            }
        }
    }
    Ok(())
}

fn holdings(side: &Side, stage: Stage, report: &mut Report, at: usize) -> Result<(), BenchError> {
    let pid = side.place.pid;
    report.add(stage.memory, at, pss_kib(pid)? / 1024.0);
    #[allow(clippy::cast_precision_loss)]
    let open = descriptors(pid)? as f64;
    report.add(stage.descriptors, at, open);
    #[allow(clippy::cast_precision_loss)]
    let files = (space(&side.place.folder).entries + space(&side.place.data).entries) as f64;
    report.add(stage.files, at, files);
    Ok(())
}
