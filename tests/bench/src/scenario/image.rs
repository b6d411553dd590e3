//! A large image comes and goes.

use std::time::{Duration, Instant};

use crate::error::BenchError;
use crate::report::Kind;
use crate::side::Side;
use crate::usage::{Space, space};

use super::{Bench, pause};

const IMAGE: &str = "registry.k8s.io/joey/bench-300m:latest";
/// How long a runtime may take to give the space back.
const PATIENCE: Duration = Duration::from_secs(60);
/// Space that may stay: the growth of records and databases.
const SLACK_BYTES: u64 = 4 << 20;

const PULL: Kind = Kind::less("PullImage", "s");
const PULL_CPU: Kind = Kind::less("CPU of the pull", "s");
const ON_DISK: Kind = Kind::less("space it takes", "MiB");
const INFO_AFTER_PULL: Kind = Kind::less("ImageFsInfo wrong by, after the pull", "MiB");
const REMOVE: Kind = Kind::less("RemoveImage", "s");
const SPACE_BACK: Kind = Kind::less("until the space is back", "s");
const INFO_MEANWHILE: Kind = Kind::less("ImageFsInfo wrong by, meanwhile", "MiB");
const INFO_RIGHT: Kind = Kind::less("until ImageFsInfo is right", "s");
const REMOVE_CPU: Kind = Kind::less("CPU of the removal", "s");

/// Rounds; one more is the warm-up, which brings the registry's files into the page cache.
const FULL: usize = 5;
const QUICK: usize = 2;

pub async fn run(bench: &mut Bench) -> Result<(), BenchError> {
    let rounds = if bench.quick { QUICK } else { FULL };
    bench.report.begin(format!(
        "A 300 MB image of 5 gzip layers ({rounds} times; median / worst)"
    ));
    for round in 0..=rounds {
        for at in bench.order(round) {
            let values = come_and_go(&bench.sides[at]).await?;
            if round > 0 {
                for (kind, value) in values {
                    bench.report.add(kind, at, value);
                }
            }
        }
    }
    Ok(())
}

async fn come_and_go(side: &Side) -> Result<Vec<(Kind, f64)>, BenchError> {
    // Else the first to write would wait for what the one before it has written.
    rustix::fs::sync();
    let before = Known::now(side).await?;
    let cpu = side.group.cpu_ms()?;
    let (_, pull_ms) = side.pull(IMAGE).await?;
    let pull_cpu = side.group.cpu_ms()? - cpu;
    let pulled = Known::now(side).await?;

    // An image is on disk for long when it is removed, not on its way there.
    rustix::fs::sync();
    let cpu = side.group.cpu_ms()?;
    let ((), remove_ms) = side.remove_image(IMAGE).await?;
    let gone = Gone::watch(side, &before).await?;
    let remove_cpu = side.group.cpu_ms()? - cpu;
    Ok(vec![
        (PULL, pull_ms / 1e3),
        (PULL_CPU, pull_cpu / 1e3),
        (ON_DISK, mib(pulled.most.saturating_sub(before.most))),
        (INFO_AFTER_PULL, mib(pulled.wrong_by(&before))),
        (REMOVE, remove_ms / 1e3),
        (SPACE_BACK, gone.space_back.as_secs_f64()),
        (INFO_MEANWHILE, mib(gone.wrong_by)),
        (INFO_RIGHT, gone.info_right.as_secs_f64()),
        (REMOVE_CPU, remove_cpu / 1e3),
    ])
}

/// What a runtime says its images use, and what its folder held around that moment.
struct Known {
    info: u64,
    least: u64,
    most: u64,
}

impl Known {
    async fn now(side: &Side) -> Result<Self, BenchError> {
        let Space { bytes: first, .. } = space(&side.place.data);
        let (info, _) = side.image_bytes().await?;
        let Space { bytes: second, .. } = space(&side.place.data);
        Ok(Self {
            info,
            least: first.min(second),
            most: first.max(second),
        })
    }

    /// By how much the change that it says differs from the change of the folder.
    fn wrong_by(&self, before: &Self) -> u64 {
        let said = i128::from(self.info) - i128::from(before.info);
        let least = i128::from(self.least) - i128::from(before.most);
        let most = i128::from(self.most) - i128::from(before.least);
        let off = (said - most).max(least - said).max(0);
        u64::try_from(off).unwrap_or(u64::MAX)
    }
}

/// How an image's space came back after RemoveImage.
struct Gone {
    space_back: Duration,
    info_right: Duration,
    wrong_by: u64,
}

impl Gone {
    async fn watch(side: &Side, before: &Known) -> Result<Self, BenchError> {
        let begun = Instant::now();
        let (mut space_back, mut info_right, mut wrong_by) = (None, None, 0);
        loop {
            let now = Known::now(side).await?;
            let off = now.wrong_by(before);
            wrong_by = off.max(wrong_by);
            if now.most <= before.most + SLACK_BYTES {
                space_back.get_or_insert_with(|| begun.elapsed());
            }
            if off <= SLACK_BYTES {
                info_right.get_or_insert_with(|| begun.elapsed());
            } else {
                info_right = None;
            }
            if let (Some(space_back), Some(info_right)) = (space_back, info_right) {
                return Ok(Self {
                    space_back,
                    info_right,
                    wrong_by,
                });
            }
            if begun.elapsed() > PATIENCE {
                return Err(side.wrong(format!(
                    "60 s after RemoveImage {} MiB more than before the pull are used, \
                     ImageFsInfo is wrong by {} MiB",
                    mib(now.most.saturating_sub(before.most)),
                    mib(off)
                )));
            }
            // Looking takes a while and disturbs.
            pause(250).await;
        }
    }
}

#[allow(clippy::cast_precision_loss)]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
