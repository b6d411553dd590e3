//! How many OOM kills a container had, also when its group is gone before it was looked at: systemd
//! removes an empty scope at once, and a shim on a busy node may come second.

use std::fs;
use std::path::Path;

use crate::server::Shim;

/// The count of OOM kills in `memory.oom_control` (v1) or `memory.events` (v2); none without the
/// file.
pub fn kills(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let count = text
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
    Some(count.unwrap_or(0))
}

/// The count of the group above, which has its own and those of all groups ever beneath it; none
/// on v1, which does not add them up.
fn kills_above(file: &Path) -> Option<u64> {
    let name = file.file_name().filter(|name| *name == "memory.events")?;
    kills(&file.parent()?.parent()?.join(name))
}

/// The counts before a container starts.
#[derive(Debug, Clone, Copy)]
pub struct Before {
    /// Its own.
    pub own: u64,
    /// Those of the group above that are not of the pod's containers.
    unexplained: Option<u64>,
}

impl Shim {
    /// The counts for a container that is about to start.
    pub fn oom_kills_before(&self, file: &Path) -> Before {
        Before {
            own: kills(file).unwrap_or(0),
            unexplained: kills_above(file).map(|all| all.saturating_sub(self.explained(None))),
        }
    }

    /// The count of a container that has just ended. Without its group it is what the group above
    /// has more than before and no other container of the pod explains.
    pub fn oom_kills_after(&self, key: u64) -> u64 {
        let Some(container) = self.containers.get(&key) else {
            return 0;
        };
        let file = Path::new(&container.oom_file);
        kills(file).unwrap_or_else(|| {
            let others = self.explained(Some(key));
            let before = container.oom_before;
            let kills = kills_above(file).zip(before.unexplained);
            kills.map_or(0, |(all, unexplained)| {
                all.saturating_sub(others).saturating_sub(unexplained)
            })
        })
    }

    /// The kills of the pod's containers, but for one.
    fn explained(&self, but: Option<u64>) -> u64 {
        let of_known = self
            .containers
            .iter()
            .filter(|(key, _)| Some(**key) != but)
            .map(|(_, container)| match &container.exit {
                Some(exit) => exit.oom_kills,
                None => kills(Path::new(&container.oom_file)).unwrap_or(0),
            });
        of_known.sum::<u64>() + self.deleted_oom_kills
    }
}
