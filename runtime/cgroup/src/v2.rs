//! Limits as writes into the v2 tree.

use std::path::Path;

use crate::files;
use crate::plan::{PlanError, Write, checked_page_size, max_or};
use crate::resources::{Resources, ThrottleKind, given};

/// Everything but devices. `dir` is the group's folder; it is read where a file holds two settings
/// and only one is asked for.
pub(crate) fn plan(dir: &Path, wanted: &Resources) -> Result<Vec<Write>, PlanError> {
    let mut writes = Vec::new();
    cpu(dir, wanted, &mut writes);
    memory(dir, wanted, &mut writes);
    if let Some(limit) = given(wanted.pids_limit) {
        writes.push(Write::new("pids", dir.join("pids.max"), max_or(limit)));
    }
    for (size, bytes) in &wanted.hugepage_limits {
        let size = checked_page_size(size)?;
        let path = dir.join(format!("hugetlb.{size}.max"));
        writes.push(Write::new("hugetlb", path, bytes));
        let path = dir.join(format!("hugetlb.{size}.rsvd.max"));
        writes.push(Write::new("hugetlb", path, bytes).optional(true));
    }
    io(dir, wanted, &mut writes);
    for (key, value) in &wanted.unified {
        let controller = controller_of(key)?;
        for line in value.lines() {
            writes.push(Write::new(controller, dir.join(key), line));
        }
    }
    Ok(writes)
}

fn cpu(dir: &Path, wanted: &Resources, writes: &mut Vec<Write>) {
    if let Some(idle) = wanted.cpu_idle {
        writes.push(Write::new("cpu", dir.join("cpu.idle"), u8::from(idle)));
    }
    if let Some(weight) = wanted.cpu_weight() {
        writes.push(Write::new("cpu", dir.join("cpu.weight"), weight));
    }
    if let Some(value) = cpu_max(dir, given(wanted.cpu_quota), given(wanted.cpu_period)) {
        writes.push(Write::new("cpu", dir.join("cpu.max"), value));
    }
    if let Some(burst) = wanted.cpu_burst {
        writes.push(Write::new("cpu", dir.join("cpu.max.burst"), burst));
    }
    for (list, name) in [
        (&wanted.cpuset_cpus, "cpuset.cpus"),
        (&wanted.cpuset_mems, "cpuset.mems"),
    ] {
        if let Some(list) = list.as_deref().filter(|l| !l.is_empty()) {
            writes.push(Write::new("cpuset", dir.join(name), list));
        }
    }
}

fn cpu_max(dir: &Path, quota: Option<i64>, period: Option<u64>) -> Option<String> {
    let quota = match (quota, period) {
        (None, None) => return None,
        (Some(quota), _) => max_or(quota),
        (None, Some(_)) => files::read(&dir.join("cpu.max"))
            .ok()
            .and_then(|now| now.split(' ').next().map(str::to_owned))
            .unwrap_or_else(|| "max".to_owned()),
    };
    Some(match period {
        Some(period) => format!("{quota} {period}"),
        None => quota,
    })
}

fn memory(dir: &Path, wanted: &Resources, writes: &mut Vec<Write>) {
    if let Some(limit) = given(wanted.memory_limit) {
        writes.push(Write::new("memory", dir.join("memory.max"), max_or(limit)));
    }
    if let Some(swap) = wanted.swap_alone() {
        // A kernel without swap has no such file, and no swap to keep anyone from.
        let value = swap.map_or_else(|| "max".to_owned(), |bytes| bytes.to_string());
        let harmless = swap.is_none() || swap == Some(0);
        let write = Write::new("memory", dir.join("memory.swap.max"), value);
        writes.push(write.optional(harmless));
    }
    if let Some(low) = given(wanted.memory_reservation) {
        writes.push(Write::new("memory", dir.join("memory.low"), max_or(low)));
    }
}

fn io(dir: &Path, wanted: &Resources, writes: &mut Vec<Write>) {
    if wanted.blkio_weight.is_some() || !wanted.blkio_weight_devices.is_empty() {
        let bfq = dir.join("io.bfq.weight");
        let (path, scale): (_, fn(u16) -> u64) = if bfq.exists() {
            (bfq, u64::from)
        } else {
            (dir.join("io.weight"), io_weight)
        };
        if let Some(weight) = given(wanted.blkio_weight) {
            let value = format!("default {}", scale(weight));
            let write = Write::new("io", path.clone(), value);
            writes.push(write.line("default".to_owned(), "default 100".to_owned()));
        }
        for device in &wanted.blkio_weight_devices {
            let key = format!("{}:{}", device.major, device.minor);
            let value = format!("{key} {}", scale(device.weight));
            let write = Write::new("io", path.clone(), value);
            writes.push(write.line(key.clone(), format!("{key} default")));
        }
    }
    for throttle in &wanted.blkio_throttles {
        let name = match throttle.kind {
            ThrottleKind::ReadBps => "rbps",
            ThrottleKind::WriteBps => "wbps",
            ThrottleKind::ReadIops => "riops",
            ThrottleKind::WriteIops => "wiops",
        };
        let key = format!("{}:{}", throttle.major, throttle.minor);
        let rate = if throttle.rate == 0 {
            "max".to_owned()
        } else {
            throttle.rate.to_string()
        };
        let write = Write::new("io", dir.join("io.max"), format!("{key} {name}={rate}"));
        let none = format!("{key} rbps=max wbps=max riops=max wiops=max");
        writes.push(write.line(key, none));
    }
}

/// 10 … 1,000 of v1 onto 1 … 10,000 of v2.
pub(crate) fn io_weight(weight: u16) -> u64 {
    let weight = u64::from(weight.clamp(10, 1000));
    1 + (weight - 10) * 9999 / 990
}

/// The controllers whose files `unified` may name; `cgroup.*` would move or kill processes.
fn controller_of(key: &str) -> Result<&'static str, PlanError> {
    const CONTROLLERS: [&str; 9] = [
        "cpu", "cpuset", "memory", "io", "pids", "hugetlb", "rdma", "misc", "dmem",
    ];
    let bad = || PlanError::BadUnifiedKey {
        key: key.to_owned(),
    };
    let sound = key
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    let (prefix, _) = key.split_once('.').filter(|_| sound).ok_or_else(bad)?;
    CONTROLLERS
        .into_iter()
        .find(|c| *c == prefix)
        .ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::Throttle;

    fn planned(wanted: &Resources) -> Vec<(String, String)> {
        plan(Path::new("/none"), wanted)
            .unwrap()
            .into_iter()
            .map(|w| (w.setting(), w.value))
            .collect()
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect()
    }

    #[test]
    fn cri_limits_become_v2_files() {
        let wanted = Resources {
            cpu_period: Some(100_000),
            cpu_quota: Some(50_000),
            cpu_shares: Some(1024),
            memory_limit: Some(1 << 20),
            memory_swap: Some(1 << 20),
            pids_limit: Some(-1),
            hugepage_limits: vec![("2MB".to_owned(), 0)],
            ..Resources::default()
        };
        let expected = owned(&[
            ("cpu.weight", "100"),
            ("cpu.max", "50000 100000"),
            ("memory.max", "1048576"),
            ("memory.swap.max", "0"),
            ("pids.max", "max"),
            ("hugetlb.2MB.max", "0"),
            ("hugetlb.2MB.rsvd.max", "0"),
        ]);
        assert_eq!(planned(&wanted), expected);
    }

    #[test]
    fn a_period_alone_keeps_the_quota() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cpu.max"), "20000 100000\n").unwrap();
        let value = cpu_max(dir.path(), None, Some(50_000));
        assert_eq!(value.as_deref(), Some("20000 50000"));
        assert_eq!(cpu_max(dir.path(), Some(-1), None).as_deref(), Some("max"));
    }

    #[test]
    fn unified_can_not_leave_the_controllers() {
        for key in [
            "cgroup.procs",
            "../memory.max",
            "memory/max",
            "memory",
            "x.y",
            "",
        ] {
            let wanted = Resources {
                unified: [(key.to_owned(), "1".to_owned())].into(),
                ..Resources::default()
            };
            let expected = PlanError::BadUnifiedKey {
                key: key.to_owned(),
            };
            assert_eq!(plan(Path::new("/none"), &wanted), Err(expected));
        }
    }

    #[test]
    fn throttles_name_their_device() {
        let wanted = Resources {
            blkio_throttles: vec![Throttle {
                major: 8,
                minor: 0,
                kind: ThrottleKind::WriteBps,
                rate: 1000,
            }],
            ..Resources::default()
        };
        assert_eq!(planned(&wanted), owned(&[("io.max", "8:0 wbps=1000")]));
    }

    #[test]
    fn io_weights_span_the_whole_range() {
        assert_eq!((io_weight(10), io_weight(1000)), (1, 10_000));
    }
}
