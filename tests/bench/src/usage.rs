//! What a runtime uses: CPU time of its control group, memory, descriptors and files.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::BenchError;

/// The control group of a runtime, its helpers and its pods, in the hierarchy that counts CPU time.
#[derive(Debug, Clone)]
pub struct Group {
    folder: PathBuf,
    unified: bool,
}

impl Group {
    /// The group of this name below the root.
    pub fn named(name: &str) -> Self {
        let counted = Path::new("/sys/fs/cgroup/cpuacct");
        let unified = !counted.exists();
        let root = if unified {
            Path::new("/sys/fs/cgroup")
        } else {
            counted
        };
        Self {
            folder: root.join(name),
            unified,
        }
    }

    /// CPU time spent so far by all processes that are or were in it or below, in ms.
    pub fn cpu_ms(&self) -> Result<f64, BenchError> {
        let (file, key, per_ms) = if self.unified {
            ("cpu.stat", "usage_usec ", 1e3)
        } else {
            ("cpuacct.usage", "", 1e6)
        };
        let path = self.folder.join(file);
        let text = read(&path)?;
        let spent = text.lines().find_map(|line| line.strip_prefix(key));
        let spent: Option<f64> = spent.and_then(|value| value.parse().ok());
        spent
            .map(|value| value / per_ms)
            .ok_or(BenchError::Format { path, text })
    }

    /// The processes in it and below.
    pub fn processes(&self) -> Result<Vec<u32>, BenchError> {
        let mut all = Vec::new();
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            let procs = folder.join("cgroup.procs");
            for line in read(&procs)?.lines() {
                all.push(number(&procs, line)?);
            }
            let entries = fs::read_dir(&folder).map_err(BenchError::file(&folder))?;
            let below = entries.flatten().map(|entry| entry.path());
            folders.extend(below.filter(|path| path.is_dir()));
        }
        Ok(all)
    }
}

/// The proportional set size of a process, in KiB.
pub fn pss_kib(pid: u32) -> Result<f64, BenchError> {
    let path = PathBuf::from(format!("/proc/{pid}/smaps_rollup"));
    let text = read(&path)?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let value = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    match value.and_then(|kib| kib.parse().ok()) {
        Some(kib) => Ok(kib),
        None => Err(BenchError::Format { path, text }),
    }
}

/// The first word of a process's command line.
pub fn program(pid: u32) -> Result<String, BenchError> {
    let path = PathBuf::from(format!("/proc/{pid}/cmdline"));
    let text = read(&path)?;
    Ok(text.split('\0').next().unwrap_or_default().to_owned())
}

/// How many descriptors a process has open.
pub fn descriptors(pid: u32) -> Result<usize, BenchError> {
    let path = PathBuf::from(format!("/proc/{pid}/fd"));
    Ok(fs::read_dir(&path)
        .map_err(BenchError::file(&path))?
        .count())
}

/// What a folder holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// Bytes on disk, hard links once.
    pub bytes: u64,
    /// Files and folders.
    pub entries: usize,
}

/// Measures a folder that others may be changing: what vanishes meanwhile does not count.
pub fn space(folder: &Path) -> Space {
    let mut found = Space::default();
    let mut linked = HashSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            found.entries += 1;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.nlink() > 1 && !linked.insert(metadata.ino()) {
                continue;
            }
            found.bytes += metadata.blocks() * 512;
        }
    }
    found
}

/// CPU time the whole machine spent working so far, in ms.
pub fn machine_busy_ms() -> Result<f64, BenchError> {
    let path = PathBuf::from("/proc/stat");
    let text = read(&path)?;
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = line.split(' ').filter_map(|n| n.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; a tick is 10 ms.
    match ticks.get(..8) {
        Some(t) => Ok((t[0] + t[1] + t[2] + t[5] + t[6]) * 10.0),
        None => Err(BenchError::Format { path, text }),
    }
}

/// CPU time this process spent so far, in ms.
pub fn own_cpu_ms() -> Result<f64, BenchError> {
    let path = PathBuf::from("/proc/self/stat");
    let text = read(&path)?;
    let fields = text.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|n| n.parse::<f64>().ok());
    match (ticks(11), ticks(12)) {
        (Some(user), Some(system)) => Ok((user + system) * 10.0),
        _ => Err(BenchError::Format { path, text }),
    }
}

fn read(path: &Path) -> Result<String, BenchError> {
    fs::read_to_string(path).map_err(BenchError::file(path))
}

fn number(path: &Path, text: &str) -> Result<u32, BenchError> {
    text.parse().map_err(|_| BenchError::Format {
        path: path.to_owned(),
        text: text.to_owned(),
    })
}
