//! Entering, killing and reading the cgroups that the daemon made; nothing here writes a limit.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::error::{Result, Step};
use crate::sys;

/// `statfs` type of cgroup v2.
const CGROUP2_MAGIC: u64 = 0x6367_7270;
/// Passes over a v1 cgroup whose processes may fork while they are being killed.
const KILL_PASSES: u32 = 20;

/// Opened cgroup folders, ready to be entered by a forked child.
#[derive(Debug, Default)]
pub struct Entry {
    unified: Option<OwnedFd>,
    tasks: Vec<(String, fs::File)>,
}

impl Entry {
    /// Opens the folders.
    pub fn open(dirs: &[String]) -> Result<Self> {
        let mut entry = Self::default();
        for dir in dirs {
            if is_unified(Path::new(dir)).step_with(|| format!("look at cgroup {dir}"))? {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let fd = openat(CWD, dir, flags, Mode::empty())
                    .step_with(|| format!("open cgroup {dir}"))?;
                entry.unified = Some(fd);
            } else {
                // Not cgroup.procs: its first write waits for an RCU grace period, `tasks` with
                // the id 0 of a single-threaded process does not.
                let file = fs::OpenOptions::new()
                    .write(true)
                    .open(Path::new(dir).join("tasks"))
                    .step_with(|| format!("open cgroup {dir}"))?;
                entry.tasks.push((dir.clone(), file));
            }
        }
        Ok(entry)
    }

    /// The cgroup v2 folder, entered by `CLONE_INTO_CGROUP`.
    pub fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }

    /// The descriptors, to keep them open in a worker.
    pub fn fds(&self) -> impl Iterator<Item = RawFd> {
        self.unified
            .iter()
            .map(AsRawFd::as_raw_fd)
            .chain(self.tasks.iter().map(|(_, file)| file.as_raw_fd()))
    }

    /// Enters the v1 folders; called by the child.
    pub fn enter(&self) -> Result<()> {
        for (dir, file) in &self.tasks {
            joey_failpoint::hit("cgroup.enter")
                .and_then(|()| (&*file).write_all(b"0"))
                .step_with(|| format!("enter cgroup {dir}"))?;
        }
        Ok(())
    }
}

/// Whether a folder is of cgroup v2.
pub fn is_unified(dir: &Path) -> rustix::io::Result<bool> {
    Ok(u64::try_from(rustix::fs::statfs(dir)?.f_type).is_ok_and(|magic| magic == CGROUP2_MAGIC))
}

/// Sends a signal to every process of the container; SIGKILL until none is left.
pub fn signal_all(dirs: &[String], signal: i32) {
    let Some(dir) = representative(dirs) else {
        return;
    };
    let kill = || {
        joey_failpoint::hit("cgroup.kill").and_then(|()| fs::write(dir.join("cgroup.kill"), "1"))
    };
    if signal != libc::SIGKILL || kill().is_err() {
        signal_each(&dir, signal);
    }
}

/// Kills what a failed start has left. Not by `cgroup.kill`: there are kernels (6.1.y) on which
/// everything that is later cloned into the same cgroup dies at once.
pub fn clear(dirs: &[String]) {
    if let Some(dir) = representative(dirs) {
        signal_each(&dir, libc::SIGKILL);
    }
}

/// The hierarchies all hold the same processes; v2, where it is, can kill in one step.
fn representative(dirs: &[String]) -> Option<PathBuf> {
    let unified = dirs
        .iter()
        .find(|dir| is_unified(Path::new(dir)).unwrap_or(false));
    unified.or_else(|| dirs.first()).map(PathBuf::from)
}

fn signal_each(dir: &Path, signal: i32) {
    let passes = if signal == libc::SIGKILL {
        KILL_PASSES
    } else {
        1
    };
    for _ in 0..passes {
        let mut pids = Vec::new();
        collect_pids(dir, &mut pids);
        if pids.is_empty() {
            break;
        }
        for pid in pids {
            // A process that has ended meanwhile is what is wanted.
            drop(sys::kill(pid, signal));
        }
    }
}

fn collect_pids(dir: &Path, pids: &mut Vec<i32>) {
    let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    pids.extend(
        procs
            .lines()
            .filter_map(|line| line.parse::<i32>().ok())
            .filter(|&pid| pid > 0),
    );
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_pids(&entry.path(), pids);
        }
    }
}
