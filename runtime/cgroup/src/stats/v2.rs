//! Counters of v2.

use std::path::Path;

use super::parse::{self, Keyed};
use super::source::Source;
use super::{CpuStats, HugetlbStats, IoStats, MemoryStats};
use crate::files;

pub(super) fn cpu(source: &mut impl Source) -> Option<CpuStats> {
    let mut stats = CpuStats::default();
    for (key, value) in Keyed::new(source.text("cpu", "cpu.stat")?).pairs() {
        let ns = value.saturating_mul(1000);
        match key {
            b"usage_usec" => stats.usage_ns = ns,
            b"user_usec" => stats.user_ns = ns,
            b"system_usec" => stats.system_ns = ns,
            b"nr_periods" => stats.periods = value,
            b"nr_throttled" => stats.throttled_periods = value,
            b"throttled_usec" => stats.throttled_ns = ns,
            _ => {}
        }
    }
    Some(stats)
}

/// Without what [`memory_events`] adds.
pub(super) fn memory(source: &mut impl Source) -> Option<MemoryStats> {
    let mut number = |name: &'static str| source.number("memory", name);
    let mut stats = MemoryStats {
        usage: number("memory.current")?,
        limit: number("memory.max").filter(|n| *n != u64::MAX),
        swap: number("memory.swap.current"),
        swap_limit: number("memory.swap.max").filter(|n| *n != u64::MAX),
        ..MemoryStats::default()
    };
    let mut kernel_parts = 0;
    for (key, value) in Keyed::new(source.text("memory", "memory.stat")?).pairs() {
        match key {
            b"anon" => stats.rss = value,
            b"file" => stats.cache = value,
            b"file_mapped" => stats.mapped_file = value,
            b"shmem" => stats.shmem = value,
            b"active_file" => stats.active_file = value,
            b"inactive_file" => stats.inactive_file = value,
            b"kernel" => stats.kernel = value,
            b"kernel_stack" | b"pagetables" | b"slab" => kernel_parts += value,
            b"pgfault" => stats.page_faults = value,
            b"pgmajfault" => stats.major_page_faults = value,
            _ => {}
        }
    }
    if stats.kernel == 0 {
        // Before 5.18 there is no sum.
        stats.kernel = kernel_parts;
    }
    stats.derive();
    Some(stats)
}

pub(super) fn memory_events(source: &mut impl Source, stats: &mut MemoryStats) {
    stats.max_usage = source.number("memory", "memory.peak");
    if let Some(text) = source.text("memory", "memory.events") {
        let events = Keyed::new(text);
        stats.limit_hits = events.get("max").unwrap_or(0);
        stats.oom_kills = events.get("oom_kill").unwrap_or(0);
    }
}

pub(super) fn io(dir: &Path) -> Vec<IoStats> {
    let text = files::read(&dir.join("io.stat")).unwrap_or_default();
    text.lines().filter_map(io_line).collect()
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`; only the number when nothing was done.
fn io_line(line: &str) -> Option<IoStats> {
    let mut fields = line.split(' ');
    let (major, minor) = parse::device(fields.next()?)?;
    let mut stats = IoStats {
        major,
        minor,
        ..IoStats::default()
    };
    for field in fields {
        let Some((key, Ok(value))) = field.split_once('=').map(|(k, v)| (k, v.parse())) else {
            continue;
        };
        match key {
            "rbytes" => stats.read_bytes = value,
            "wbytes" => stats.write_bytes = value,
            "rios" => stats.reads = value,
            "wios" => stats.writes = value,
            _ => {}
        }
    }
    Some(stats)
}

pub(super) fn hugetlb(dir: &Path) -> Vec<HugetlbStats> {
    let mut buffer = Vec::new();
    page_sizes(dir, ".current")
        .into_iter()
        .filter_map(|size| {
            let path = |name: &str| dir.join(format!("hugetlb.{size}.{name}"));
            let usage = files::read_number(&path("current"))?;
            let failures = files::read_into(&path("events"), &mut buffer)
                .ok()
                .and_then(|()| Keyed::new(&buffer).get("max"));
            Some(HugetlbStats {
                usage,
                max_usage: 0,
                failures: failures.unwrap_or(0),
                page_size: size,
            })
        })
        .collect()
}

/// The sizes `hugetlb.SIZE<ending>` exists for, without reservations.
pub(super) fn page_sizes(dir: &Path, ending: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut sizes: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let size = name
                .to_str()?
                .strip_prefix("hugetlb.")?
                .strip_suffix(ending)?;
            (!size.contains('.')).then(|| size.to_owned())
        })
        .collect();
    sizes.sort();
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::Group;
    use crate::layout::Layout;
    use crate::path;
    use crate::stats::StatsReader;
    use std::fs;

    #[test]
    fn counters_of_v2_are_read_in_the_units_of_cri() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        file(
            "cpu.stat",
            "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 1\nthrottled_usec 5\n",
        );
        file("memory.current", "1000\n");
        file("memory.max", "max\n");
        file("memory.swap.current", "10\n");
        file("memory.swap.max", "100\n");
        file(
            "memory.stat",
            "anon 300\nfile 500\ninactive_file 200\nkernel_stack 5\nslab 6\n",
        );
        file("memory.events", "low 0\nhigh 0\nmax 4\noom 1\noom_kill 1\n");
        file("hugetlb.2MB.current", "2097152\n");
        file("hugetlb.2MB.rsvd.current", "0\n");
        file("hugetlb.2MB.events", "max 3\n");
        let layout = Layout::v2_at(dir.path());
        let group = Group::new(&layout, path::plain_parent("/").unwrap());
        let stats = group.cpu_stats().unwrap();
        assert_eq!((stats.usage_ns, stats.throttled_ns), (30_000, 5_000));
        let stats = group.memory_stats().unwrap();
        assert_eq!((stats.working_set, stats.limit), (800, None));
        assert_eq!(
            (stats.kernel, stats.oom_kills, stats.limit_hits),
            (11, 1, 4)
        );
        assert_eq!(stats.swap_available, Some(90));
        let usage = StatsReader::new(&group).read().unwrap();
        assert_eq!(usage.cpu_usage_ns, Some(30_000));
        assert_eq!(usage.memory.unwrap().working_set, 800);
        let pages = hugetlb(dir.path());
        assert_eq!(pages.len(), 1);
        assert_eq!((pages[0].usage, pages[0].failures), (2_097_152, 3));
    }

    #[test]
    fn io_lines_without_traffic_are_zero() {
        let line = io_line("8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=9 dios=9").unwrap();
        assert_eq!((line.minor, line.read_bytes, line.writes), (16, 1, 4));
        assert_eq!(io_line("7:0").unwrap().reads, 0);
        assert_eq!(io_line(""), None);
    }
}
