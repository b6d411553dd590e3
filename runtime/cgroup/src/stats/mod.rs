//! What a group uses: cheap reads of the kernel's counters.

mod parse;
mod source;
mod v1;
mod v2;

use std::time::{SystemTime, UNIX_EPOCH};

pub use parse::{Pressure, PressureTimes};

use crate::files;
use crate::group::Group;
use source::{Fresh, Kept, Source};

/// Everything about a group, read at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// CLOCK_REALTIME, ns; taken before the first file is read.
    pub timestamp_ns: u64,
    /// Processor time.
    pub cpu: Option<CpuStats>,
    /// Memory and swap.
    pub memory: Option<MemoryStats>,
    /// Tasks.
    pub pids: Option<PidsStats>,
    /// Disk traffic, a line per device.
    pub io: Vec<IoStats>,
}

/// Processor time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuStats {
    /// ns since the group was made.
    pub usage_ns: u64,
    /// ns in user mode.
    pub user_ns: u64,
    /// ns in the kernel.
    pub system_ns: u64,
    /// Periods of the quota that passed.
    pub periods: u64,
    /// Those in which the quota was used up.
    pub throttled_periods: u64,
    /// ns of waiting for a new period, summed over processors.
    pub throttled_ns: u64,
}

/// Memory and swap, in bytes where not said otherwise. Sums include the groups beneath.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// All that is charged.
    pub usage: u64,
    /// The highest it was, where the kernel says (v2 since 5.19).
    pub max_usage: Option<u64>,
    /// Usage without file pages that can be dropped at once: `usage − inactive_file`.
    pub working_set: u64,
    /// Anonymous memory.
    pub rss: u64,
    /// File pages.
    pub cache: u64,
    /// Mapped file pages.
    pub mapped_file: u64,
    /// Shared memory and tmpfs.
    pub shmem: u64,
    /// File pages used lately.
    pub active_file: u64,
    /// File pages not used lately.
    pub inactive_file: u64,
    /// Charged to the kernel's own data.
    pub kernel: u64,
    /// The limit of the group, or of one above that is lower; None without.
    pub limit: Option<u64>,
    /// `limit − working_set`.
    pub available: Option<u64>,
    /// Swapped out; None without swap accounting.
    pub swap: Option<u64>,
    /// Limit of swap alone; None without one.
    pub swap_limit: Option<u64>,
    /// `swap_limit − swap`.
    pub swap_available: Option<u64>,
    /// Page faults.
    pub page_faults: u64,
    /// Those that had to read.
    pub major_page_faults: u64,
    /// Page faults of the group itself, without those beneath; v2 does not tell.
    pub own_page_faults: Option<u64>,
    /// Those that had to read.
    pub own_major_page_faults: Option<u64>,
    /// How often the limit was hit.
    pub limit_hits: u64,
    /// Processes killed for memory.
    pub oom_kills: u64,
}

/// Tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PidsStats {
    /// Threads: what the limit counts.
    pub threads: u64,
    /// None without a limit.
    pub limit: Option<u64>,
}

/// Traffic of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IoStats {
    /// Device number.
    pub major: u32,
    /// Device number.
    pub minor: u32,
    /// Bytes.
    pub read_bytes: u64,
    /// Bytes.
    pub write_bytes: u64,
    /// Requests.
    pub reads: u64,
    /// Requests.
    pub writes: u64,
}

/// Huge pages of one size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HugetlbStats {
    /// `2MB`, `1GB` …
    pub page_size: String,
    /// Bytes.
    pub usage: u64,
    /// Bytes; 0 where the kernel does not tell (v2).
    pub max_usage: u64,
    /// How often the limit was hit.
    pub failures: u64,
}

/// Pressure stall information of a group.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Psi {
    /// Waiting for a processor.
    pub cpu: Option<Pressure>,
    /// Waiting for memory.
    pub memory: Option<Pressure>,
    /// Waiting for disks.
    pub io: Option<Pressure>,
}

impl Group {
    /// CPU, memory, tasks and disk traffic. None when the group is gone.
    #[must_use]
    pub fn stats(&self) -> Option<Stats> {
        let stats = Stats {
            timestamp_ns: now_ns(),
            cpu: self.cpu_stats(),
            memory: self.memory_stats(),
            pids: self.pids_stats(),
            io: self.io_stats(),
        };
        let found = stats.cpu.is_some() || stats.memory.is_some() || stats.pids.is_some();
        found.then_some(stats)
    }

    /// Processor time; None without the controller or the group.
    #[must_use]
    pub fn cpu_stats(&self) -> Option<CpuStats> {
        let mut source = Fresh::new(self);
        if self.is_v2() {
            v2::cpu(&mut source)
        } else {
            v1::cpu(&mut source)
        }
    }

    /// Memory and swap; None without the controller or the group.
    #[must_use]
    pub fn memory_stats(&self) -> Option<MemoryStats> {
        let mut source = Fresh::new(self);
        let mut stats = memory(&mut source, self.is_v2())?;
        if self.is_v2() {
            v2::memory_events(&mut source, &mut stats);
        } else {
            v1::memory_events(&mut source, &mut stats);
        }
        Some(stats)
    }

    /// Tasks; None without the controller or the group.
    #[must_use]
    pub fn pids_stats(&self) -> Option<PidsStats> {
        let dir = match self.v2_dir() {
            Some(dir) => dir,
            None => self.v1_dir("pids")?,
        };
        Some(PidsStats {
            threads: files::read_number(&dir.join("pids.current"))?,
            limit: files::read_number(&dir.join("pids.max")).filter(|n| *n != u64::MAX),
        })
    }

    /// Disk traffic; empty without the controller, the group, or any traffic.
    #[must_use]
    pub fn io_stats(&self) -> Vec<IoStats> {
        match (self.v2_dir(), self.v1_dir("blkio")) {
            (Some(dir), _) => v2::io(&dir),
            (None, Some(dir)) => v1::io(&dir),
            (None, None) => Vec::new(),
        }
    }

    /// Huge pages, a line per size; empty without the controller or the group.
    #[must_use]
    pub fn hugetlb_stats(&self) -> Vec<HugetlbStats> {
        match (self.v2_dir(), self.v1_dir("hugetlb")) {
            (Some(dir), _) => v2::hugetlb(&dir),
            (None, Some(dir)) => v1::hugetlb(&dir),
            (None, None) => Vec::new(),
        }
    }

    /// Pressure stall information, where the kernel has it and the processes are in a v2 tree.
    #[must_use]
    pub fn psi(&self) -> Option<Psi> {
        psi(&mut Fresh::new(self))
    }

    /// Processes killed for memory in the group and beneath it; 0 when it is gone.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        let mut buffer = Vec::new();
        if files::read_into(&self.oom_file(), &mut buffer).is_err() {
            return 0;
        }
        parse::Keyed::new(&buffer).get("oom_kill").unwrap_or(0)
    }

    /// The number of processes of the group and of those beneath it.
    #[must_use]
    pub fn process_count(&self) -> u64 {
        u64::try_from(self.processes().len()).unwrap_or(u64::MAX)
    }

    fn is_v2(&self) -> bool {
        self.layout.v1().is_empty()
    }

    pub(crate) fn v2_dir(&self) -> Option<std::path::PathBuf> {
        self.unified_dir().filter(|_| self.is_v2())
    }
}

fn psi(source: &mut impl Source) -> Option<Psi> {
    let mut of = |name| {
        let text = source.text(source::PRESSURE, name)?;
        parse::pressure(std::str::from_utf8(text).ok()?)
    };
    let psi = Psi {
        cpu: of("cpu.pressure"),
        memory: of("memory.pressure"),
        io: of("io.pressure"),
    };
    (psi != Psi::default()).then_some(psi)
}

fn memory(source: &mut impl Source, is_v2: bool) -> Option<MemoryStats> {
    if is_v2 {
        v2::memory(source)
    } else {
        v1::memory(source)
    }
}

/// Reads the same group again and again, with its files kept open: about a tenth of the cost of
/// [`Group::stats`], and at most ten descriptors. They do not keep the group from being removed.
#[derive(Debug)]
pub struct StatsReader {
    source: Kept,
    is_v2: bool,
}

/// What CRI's container statistics need.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// CLOCK_REALTIME, ns.
    pub timestamp_ns: u64,
    /// ns of processor time.
    pub cpu_usage_ns: Option<u64>,
    /// `max_usage`, `limit_hits`, `oom_kills` (and on v1 `kernel`) are not read.
    pub memory: Option<MemoryStats>,
    /// Threads.
    pub threads: Option<u64>,
    /// As [`Group::psi`] tells it.
    pub psi: Option<Psi>,
}

impl StatsReader {
    /// Opens nothing yet.
    #[must_use]
    pub fn new(group: &Group) -> Self {
        Self {
            source: Kept::new(group.clone()),
            is_v2: group.is_v2(),
        }
    }

    /// None once the group is gone.
    pub fn read(&mut self) -> Option<Usage> {
        let source = &mut self.source;
        let usage = Usage {
            timestamp_ns: now_ns(),
            cpu_usage_ns: if self.is_v2 {
                v2::cpu(source).map(|cpu| cpu.usage_ns)
            } else {
                v1::cpu_usage(source)
            },
            memory: memory(source, self.is_v2),
            threads: source.number("pids", "pids.current"),
            psi: psi(source),
        };
        let found = usage.cpu_usage_ns.is_some() || usage.memory.is_some();
        found.then_some(usage)
    }
}

fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|d| u64::try_from(d.as_nanos()).ok())
        .unwrap_or(0)
}
