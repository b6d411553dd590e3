//! Counters of v1.

use std::path::Path;

use super::parse::{self, Keyed};
use super::source::Source;
use super::{CpuStats, HugetlbStats, IoStats, MemoryStats};
use crate::files;
use crate::read_back::V1_UNLIMITED;

pub(super) fn cpu_usage(source: &mut impl Source) -> Option<u64> {
    source.number("cpuacct", "cpuacct.usage")
}

pub(super) fn cpu(source: &mut impl Source) -> Option<CpuStats> {
    let mut stats = CpuStats {
        usage_ns: cpu_usage(source)?,
        ..CpuStats::default()
    };
    // cpuacct.stat counts ticks of 10 ms; these two count ns.
    let (user, system) = ("cpuacct.usage_user", "cpuacct.usage_sys");
    stats.user_ns = source.number("cpuacct", user).unwrap_or(0);
    stats.system_ns = source.number("cpuacct", system).unwrap_or(0);
    let text = source.text("cpu", "cpu.stat").unwrap_or_default();
    for (key, value) in Keyed::new(text).pairs() {
        match key {
            b"nr_periods" => stats.periods = value,
            b"nr_throttled" => stats.throttled_periods = value,
            b"throttled_time" => stats.throttled_ns = value,
            _ => {}
        }
    }
    Some(stats)
}

/// Without what [`memory_events`] adds.
pub(super) fn memory(source: &mut impl Source) -> Option<MemoryStats> {
    let mut stats = MemoryStats {
        usage: source.number("memory", "memory.usage_in_bytes")?,
        ..MemoryStats::default()
    };
    let mut both_limit = None;
    let limited = |value: u64| Some(value).filter(|n| *n < V1_UNLIMITED);
    for (key, value) in Keyed::new(source.text("memory", "memory.stat")?).pairs() {
        match key {
            b"pgfault" => stats.own_page_faults = Some(value),
            b"pgmajfault" => stats.own_major_page_faults = Some(value),
            b"hierarchical_memory_limit" => stats.limit = limited(value),
            b"hierarchical_memsw_limit" => both_limit = limited(value),
            b"total_cache" => stats.cache = value,
            b"total_rss" => stats.rss = value,
            b"total_shmem" => stats.shmem = value,
            b"total_mapped_file" => stats.mapped_file = value,
            b"total_swap" => stats.swap = Some(value),
            b"total_pgfault" => stats.page_faults = value,
            b"total_pgmajfault" => stats.major_page_faults = value,
            b"total_inactive_file" => stats.inactive_file = value,
            b"total_active_file" => stats.active_file = value,
            _ => {}
        }
    }
    stats.swap_limit = match (both_limit, stats.limit) {
        (Some(both), Some(memory)) => Some(both.saturating_sub(memory)),
        (both, None) => both,
        (None, Some(_)) => None,
    };
    stats.derive();
    Some(stats)
}

pub(super) fn memory_events(source: &mut impl Source, stats: &mut MemoryStats) {
    let mut number = |name: &'static str| source.number("memory", name);
    stats.kernel = number("memory.kmem.usage_in_bytes").unwrap_or(0);
    stats.max_usage = number("memory.max_usage_in_bytes");
    // The limit of memory and swap is asked first where it is the same.
    let hits = ["memory.failcnt", "memory.memsw.failcnt"].map(|name| number(name).unwrap_or(0));
    stats.limit_hits = hits.iter().sum();
    if let Some(text) = source.text("memory", "memory.oom_control") {
        stats.oom_kills = Keyed::new(text).get("oom_kill").unwrap_or(0);
    }
}

impl MemoryStats {
    /// What follows from the counters.
    pub(super) fn derive(&mut self) {
        self.working_set = self.usage.saturating_sub(self.inactive_file);
        self.available = self.limit.map(|l| l.saturating_sub(self.working_set));
        let swap = self.swap.unwrap_or(0);
        self.swap_available = self.swap_limit.map(|l| l.saturating_sub(swap));
    }
}

pub(super) fn io(dir: &Path) -> Vec<IoStats> {
    let mut all: Vec<IoStats> = Vec::new();
    let mut buffer = Vec::with_capacity(1024);
    for (name, bytes) in [
        ("blkio.throttle.io_service_bytes_recursive", true),
        ("blkio.throttle.io_serviced_recursive", false),
    ] {
        if files::read_into(&dir.join(name), &mut buffer).is_err() {
            continue;
        }
        for line in String::from_utf8_lossy(&buffer).lines() {
            add_line(&mut all, line, bytes);
        }
    }
    all
}

/// `8:0 Read 4096`.
fn add_line(all: &mut Vec<IoStats>, line: &str, bytes: bool) {
    let mut fields = line.split(' ');
    let (Some(name), Some(kind), Some(value)) = (fields.next(), fields.next(), fields.next())
    else {
        return;
    };
    let (Some((major, minor)), Ok(value)) = (parse::device(name), value.parse::<u64>()) else {
        return;
    };
    let at = all
        .iter()
        .position(|d| (d.major, d.minor) == (major, minor))
        .unwrap_or_else(|| {
            all.push(IoStats {
                major,
                minor,
                ..IoStats::default()
            });
            all.len() - 1
        });
    let field = match (kind, bytes) {
        ("Read", true) => &mut all[at].read_bytes,
        ("Write", true) => &mut all[at].write_bytes,
        ("Read", false) => &mut all[at].reads,
        ("Write", false) => &mut all[at].writes,
        _ => return,
    };
    *field = value;
}

pub(super) fn hugetlb(dir: &Path) -> Vec<HugetlbStats> {
    super::v2::page_sizes(dir, ".usage_in_bytes")
        .into_iter()
        .filter_map(|size| {
            let number =
                |name: &str| files::read_number(&dir.join(format!("hugetlb.{size}.{name}")));
            Some(HugetlbStats {
                usage: number("usage_in_bytes")?,
                max_usage: number("max_usage_in_bytes").unwrap_or(0),
                failures: number("failcnt").unwrap_or(0),
                page_size: size,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::Group;
    use crate::layout::Layout;
    use crate::path;
    use std::fs;

    /// The root group of these mounts.
    fn group_at(mounts: &str) -> Group {
        let layout = Layout::parse(mounts).unwrap();
        Group::new(&layout, path::plain_parent("/").unwrap())
    }

    #[test]
    fn memory_of_v1_is_read_with_the_groups_beneath() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        file("memory.usage_in_bytes", "1000\n");
        file("memory.failcnt", "3\n");
        file(
            "memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        );
        file(
            "memory.stat",
            "cache 1\npgfault 5\nhierarchical_memory_limit 4000\n\
             hierarchical_memsw_limit 6000\ntotal_rss 300\ntotal_swap 50\n\
             total_inactive_file 200\ntotal_pgfault 9\n",
        );
        let layout = "1 1 0:1 / DIR rw - cgroup cgroup rw,memory"
            .replace("DIR", dir.path().to_str().unwrap());
        let group = group_at(&layout);
        let stats = group.memory_stats().unwrap();
        assert_eq!(stats.working_set, 800);
        assert_eq!(stats.available, Some(3200));
        assert_eq!(stats.swap_limit, Some(2000));
        assert_eq!(stats.swap_available, Some(1950));
        assert_eq!((stats.page_faults, stats.own_page_faults), (9, Some(5)));
        assert_eq!((stats.limit_hits, stats.oom_kills), (3, 2));
    }

    #[test]
    fn unlimited_memory_has_neither_limit_nor_rest() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("memory.usage_in_bytes"), "1").unwrap();
        let text = "hierarchical_memory_limit 9223372036854771712\n";
        fs::write(dir.path().join("memory.stat"), text).unwrap();
        let layout = "1 1 0:1 / DIR rw - cgroup cgroup rw,memory"
            .replace("DIR", dir.path().to_str().unwrap());
        let stats = group_at(&layout).memory_stats().unwrap();
        assert_eq!((stats.limit, stats.available), (None, None));
    }

    #[test]
    fn disk_traffic_is_summed_up_by_device() {
        let mut all = Vec::new();
        for line in [
            "8:0 Read 10",
            "8:0 Write 20",
            "8:0 Total 30",
            "Total 30",
            "x",
        ] {
            add_line(&mut all, line, true);
        }
        add_line(&mut all, "8:0 Write 2", false);
        let expected = IoStats {
            major: 8,
            read_bytes: 10,
            write_bytes: 20,
            writes: 2,
            ..IoStats::default()
        };
        assert_eq!(all, [expected]);
    }
}
