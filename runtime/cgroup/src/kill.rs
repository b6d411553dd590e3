//! Processes of a group: listing, killing, freezing.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::files::{self, FileError};
use crate::group::Group;

/// Rounds of killing before giving up on a group that makes processes faster than they die.
const KILL_ROUNDS: usize = 64;
/// How long a v1 group may take to stop before it is killed unfrozen.
const FREEZE_FOR_KILL: Duration = Duration::from_millis(200);
/// How long a freeze may take; a process in an uninterruptible wait holds it up.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);

/// Some process of a group could not be killed.
#[derive(Debug, thiserror::Error)]
pub enum KillError {
    /// The group's own files.
    #[error(transparent)]
    File(#[from] FileError),
    /// One process.
    #[error("kill process {pid}")]
    Process {
        /// Its id.
        pid: i32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It forks faster than it dies.
    #[error("cgroup {0} still has new processes after {KILL_ROUNDS} rounds of killing")]
    Endless(String),
}

/// A group could not be frozen or thawed.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// The group's own files.
    #[error(transparent)]
    File(#[from] FileError),
    /// Neither a v1 freezer nor a v2 tree is mounted.
    #[error("this host has no cgroup freezer")]
    NoFreezer,
    /// It takes too long; the group was thawed.
    #[error("cgroup {0} did not freeze within 10 s")]
    TimedOut(String),
}

impl Group {
    /// The processes of the group and of those beneath it, sorted. Empty when it is gone.
    #[must_use]
    pub fn processes(&self) -> Vec<i32> {
        let mut all = BTreeSet::new();
        if let Some(dir) = self.main_dir() {
            collect(&dir, &mut all);
        }
        all.into_iter().collect()
    }

    /// Sends SIGKILL to every process of the group and of those beneath it, and returns without
    /// waiting for their end. A group that is gone is fine.
    ///
    /// # Errors
    /// A process that can't be killed.
    pub fn kill_all(&self) -> Result<(), KillError> {
        if let Some(dir) = self.unified_dir() {
            let file = dir.join("cgroup.kill");
            match files::write(&file, "1") {
                Ok(()) => {}
                Err(e) if files::is_gone(&e) => {}
                Err(e) => return Err(FileError::new("write 1 to", &file, e).into()),
            }
        }
        if self.layout.v1().is_empty() {
            return Ok(());
        }
        // With the v1 tree a process may have left the v2 group, or never entered it.
        let seen = self.kill_round(&BTreeSet::new())?;
        if seen.is_empty() || self.v1_processes().is_subset(&seen) {
            return Ok(());
        }
        self.kill_forking(seen)
    }

    /// Frozen, it can't fork; a frozen v1 process dies once thawed.
    fn kill_forking(&self, mut seen: BTreeSet<i32>) -> Result<(), KillError> {
        for _ in 0..KILL_ROUNDS {
            let frozen = self.freeze_v1_briefly();
            let round = self.kill_round(&seen);
            if frozen && let Some(file) = self.freezer_file() {
                files::write(&file, "THAWED")
                    .map_err(|e| FileError::new("write THAWED to", &file, e))?;
            }
            let killed = round?;
            if killed.is_empty() && self.v1_processes().is_subset(&seen) {
                return Ok(());
            }
            seen.extend(killed);
        }
        Err(KillError::Endless(self.path().display().to_string()))
    }

    /// Kills who is there and not among `done`; returns them.
    fn kill_round(&self, done: &BTreeSet<i32>) -> Result<BTreeSet<i32>, KillError> {
        let there = self.v1_processes();
        let new: BTreeSet<i32> = there.difference(done).copied().collect();
        let pinned: Vec<_> = new
            .iter()
            .filter_map(|pid| {
                let pid = Pid::from_raw(*pid)?;
                let fd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
                Some((pid.as_raw_nonzero().get(), fd))
            })
            .collect();
        // Pinned, an id that still is in the group can't be another process's.
        let still = if pinned.is_empty() {
            BTreeSet::new()
        } else {
            self.v1_processes()
        };
        for (pid, fd) in pinned.iter().filter(|(pid, _)| still.contains(pid)) {
            match rustix::process::pidfd_send_signal(fd, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(e) => {
                    return Err(KillError::Process {
                        pid: *pid,
                        source: e.into(),
                    });
                }
            }
        }
        Ok(new)
    }

    /// In any of the v1 hierarchies: a privileged container may have moved within one.
    fn v1_processes(&self) -> BTreeSet<i32> {
        let mut all = BTreeSet::new();
        for hierarchy in self.layout.v1() {
            collect(&hierarchy.root.join(&self.path), &mut all);
        }
        all
    }

    fn freezer_file(&self) -> Option<PathBuf> {
        Some(self.v1_dir("freezer")?.join("freezer.state"))
    }

    fn freeze_v1_briefly(&self) -> bool {
        let Some(file) = self.freezer_file() else {
            return false;
        };
        if files::write(&file, "FROZEN").is_err() {
            return false;
        }
        let end = Instant::now() + FREEZE_FOR_KILL;
        while Instant::now() < end {
            if files::read(&file).is_ok_and(|state| state == "FROZEN") {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Stops every process of the group and waits until all stand still.
    ///
    /// # Errors
    /// After 10 s without success the group is thawed again.
    pub async fn freeze(&self) -> Result<(), FreezeError> {
        self.set_frozen(true)?;
        let end = Instant::now() + FREEZE_TIMEOUT;
        let mut pause = Duration::from_micros(200);
        while !self.is_frozen() {
            if Instant::now() >= end {
                self.set_frozen(false)?;
                return Err(FreezeError::TimedOut(self.path().display().to_string()));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
            // A v1 group may need another push when processes were forked meanwhile.
            if let Some(file) = self.freezer_file() {
                drop(files::write(&file, "FROZEN"));
            }
        }
        Ok(())
    }

    /// Lets the processes of the group go on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn thaw(&self) -> Result<(), FreezeError> {
        self.set_frozen(false)
    }

    /// Whether every process of the group stands still.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        match (self.freezer_file(), self.unified_dir()) {
            (Some(file), _) => files::read(&file).is_ok_and(|state| state == "FROZEN"),
            (None, Some(dir)) => files::read(&dir.join("cgroup.events"))
                .is_ok_and(|events| events.lines().any(|line| line == "frozen 1")),
            (None, None) => false,
        }
    }

    fn set_frozen(&self, frozen: bool) -> Result<(), FreezeError> {
        let (file, value) = match (self.freezer_file(), self.unified_dir()) {
            (Some(file), _) => (file, if frozen { "FROZEN" } else { "THAWED" }),
            (None, Some(dir)) => (dir.join("cgroup.freeze"), if frozen { "1" } else { "0" }),
            (None, None) => return Err(FreezeError::NoFreezer),
        };
        files::write(&file, value)
            .map_err(|e| FileError::new(format!("write {value} to"), &file, e).into())
    }
}

/// The processes of `dir` and of the groups beneath it.
fn collect(dir: &Path, all: &mut BTreeSet<i32>) {
    // A threaded v2 group refuses the read; its processes are those of its parent.
    if let Ok(procs) = files::read(&dir.join("cgroup.procs")) {
        all.extend(procs.lines().filter_map(|line| line.parse::<i32>().ok()));
    }
    for child in child_groups(dir) {
        collect(&child, all);
    }
}

/// The folders in `dir`. A group without any has two links (itself and its entry in the parent).
pub(crate) fn child_groups(dir: &Path) -> Vec<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    if fs::metadata(dir).map_or(true, |meta| meta.nlink() == 2) {
        return Vec::new();
    }
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}
