//! The limits that are in force.

use std::path::Path;

use crate::files;
use crate::group::Group;
use crate::layout::Version;
use crate::resources::{Resources, shares_of_weight, weight_of_shares};
use crate::same;

/// v1 says "no limit" by the largest multiple of a page.
pub(crate) const V1_UNLIMITED: u64 = 0x7fff_ffff_ffff_0000;

impl Group {
    /// What the kernel has, in the terms of [`Resources`]; −1 where there is no limit. Device rules,
    /// disk limits and `unified` are not read. On v2 `cpu_shares` are the smallest that give the
    /// weight in force.
    #[must_use]
    pub fn read_back(&self) -> Resources {
        match (self.layout.version(), self.unified_dir()) {
            (Version::V2, Some(dir)) => read_v2(&dir),
            _ => self.read_v1(),
        }
    }

    /// `recorded` where the kernel has just that, else what the kernel has: numbers that it rounds or
    /// turns into others come back as they were asked for. What was not asked for is told where it
    /// is a limit.
    #[must_use]
    pub fn in_force(&self, recorded: &Resources) -> Resources {
        let kernel = self.read_back();
        let mut told = recorded.clone();
        let v2 = self.layout.version() == Version::V2;
        let weight = |shares: u64| if v2 { weight_of_shares(shares) } else { shares };
        let shares = |kept: &u64, asked: &u64| weight(*kept) == weight(*asked);
        adopt(&mut told.cpu_shares, kernel.cpu_shares, shares);
        adopt(&mut told.cpu_period, kernel.cpu_period, u64::eq);
        adopt(&mut told.cpu_burst, kernel.cpu_burst, u64::eq);
        let lists = |kept: &String, asked: &String| same::list(kept) == same::list(asked);
        adopt(&mut told.cpuset_cpus, kernel.cpuset_cpus, lists);
        adopt(&mut told.cpuset_mems, kernel.cpuset_mems, lists);
        adopt(&mut told.memory_swap, kernel.memory_swap, same_bytes);
        adopt(
            &mut told.memory_reservation,
            kernel.memory_reservation,
            same_bytes,
        );
        for (told, kernel) in [
            (&mut told.cpu_quota, kernel.cpu_quota),
            (&mut told.memory_limit, kernel.memory_limit),
            (&mut told.pids_limit, kernel.pids_limit),
        ] {
            if told.is_none() {
                *told = kernel.filter(|limit| *limit >= 0);
            }
            adopt(told, kernel, same_bytes);
        }
        for (size, limit) in &mut told.hugepage_limits {
            let found = kernel
                .hugepage_limits
                .iter()
                .find(|(other, _)| other == size);
            if let Some((_, found)) = found {
                *limit = *found;
            }
        }
        told
    }

    fn read_v1(&self) -> Resources {
        let text = |controller: &str, name: &str| -> Option<String> {
            files::read(&self.v1_dir(controller)?.join(name)).ok()
        };
        let number =
            |controller: &str, name: &str| -> Option<u64> { text(controller, name)?.parse().ok() };
        let signed =
            |controller: &str, name: &str| -> Option<i64> { text(controller, name)?.parse().ok() };
        let bytes = |name: &str| number("memory", name).map(unlimited_as_minus_one);
        Resources {
            cpu_period: number("cpu", "cpu.cfs_period_us"),
            cpu_quota: signed("cpu", "cpu.cfs_quota_us"),
            cpu_shares: number("cpu", "cpu.shares"),
            cpu_burst: number("cpu", "cpu.cfs_burst_us"),
            cpu_idle: number("cpu", "cpu.idle").map(|n| n == 1),
            cpuset_cpus: text("cpuset", "cpuset.cpus"),
            cpuset_mems: text("cpuset", "cpuset.mems"),
            memory_limit: bytes("memory.limit_in_bytes"),
            memory_swap: bytes("memory.memsw.limit_in_bytes"),
            memory_reservation: bytes("memory.soft_limit_in_bytes"),
            swappiness: number("memory", "memory.swappiness"),
            pids_limit: text("pids", "pids.max")
                .as_deref()
                .and_then(max_as_minus_one),
            hugepage_limits: self
                .v1_dir("hugetlb")
                .map(|dir| hugepages(&dir, ".limit_in_bytes"))
                .unwrap_or_default(),
            ..Resources::default()
        }
    }
}

/// Takes the kernel's value for one that was asked for and is another now.
fn adopt<T>(told: &mut Option<T>, kernel: Option<T>, same: impl Fn(&T, &T) -> bool) {
    if let (Some(asked), Some(kept)) = (told.as_mut(), kernel)
        && !same(&kept, asked)
    {
        *asked = kept;
    }
}

fn same_bytes(kept: &i64, asked: &i64) -> bool {
    match (u64::try_from(*kept), u64::try_from(*asked)) {
        (Ok(kept), Ok(asked)) => same::is_rounded(kept, asked),
        (kept, asked) => kept.is_err() && asked.is_err(),
    }
}

fn read_v2(dir: &Path) -> Resources {
    let text = |name: &str| files::read(&dir.join(name)).ok();
    let number = |name: &str| text(name)?.parse::<u64>().ok();
    let bytes = |name: &str| text(name).as_deref().and_then(max_as_minus_one);
    let (quota, period) = match text("cpu.max") {
        Some(both) => {
            let mut parts = both.split(' ');
            (
                parts.next().and_then(max_as_minus_one),
                parts.next().and_then(|p| p.parse().ok()),
            )
        }
        None => (None, None),
    };
    let limit = bytes("memory.max");
    let total = match (limit, bytes("memory.swap.max")) {
        (_, Some(-1)) | (Some(-1), Some(_)) => Some(-1),
        (Some(limit), Some(swap)) => Some(limit.saturating_add(swap)),
        _ => None,
    };
    let lists = |name: &str| text(name).filter(|list| !list.is_empty());
    Resources {
        cpu_period: period,
        cpu_quota: quota,
        cpu_shares: number("cpu.weight").map(shares_of_weight),
        cpu_burst: number("cpu.max.burst"),
        cpu_idle: number("cpu.idle").map(|n| n == 1),
        cpuset_cpus: lists("cpuset.cpus").or_else(|| lists("cpuset.cpus.effective")),
        cpuset_mems: lists("cpuset.mems").or_else(|| lists("cpuset.mems.effective")),
        memory_limit: limit,
        memory_swap: total,
        memory_reservation: bytes("memory.low"),
        pids_limit: bytes("pids.max"),
        hugepage_limits: hugepages(dir, ".max"),
        ..Resources::default()
    }
}

fn hugepages(dir: &Path, ending: &str) -> Vec<(String, u64)> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut all: Vec<(String, u64)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let size = name
                .to_str()?
                .strip_prefix("hugetlb.")?
                .strip_suffix(ending)?;
            let limit = files::read_number(&entry.path())?;
            let limited = !size.contains('.') && limit < V1_UNLIMITED;
            limited.then(|| (size.to_owned(), limit))
        })
        .collect();
    all.sort();
    all
}

fn unlimited_as_minus_one(bytes: u64) -> i64 {
    if bytes >= V1_UNLIMITED {
        return -1;
    }
    i64::try_from(bytes).unwrap_or(-1)
}

fn max_as_minus_one(text: &str) -> Option<i64> {
    if text == "max" {
        return Some(-1);
    }
    text.parse().ok()
}

impl Resources {
    /// Only what `wanted` speaks about: what brings back the state before it.
    pub(crate) fn limited_to(self, wanted: &Resources) -> Resources {
        fn only<T, U>(value: Option<T>, wanted: Option<&U>) -> Option<T> {
            value.filter(|_| wanted.is_some())
        }
        Resources {
            cpu_period: only(self.cpu_period, wanted.cpu_period.as_ref()),
            cpu_quota: only(self.cpu_quota, wanted.cpu_quota.as_ref()),
            cpu_shares: only(self.cpu_shares, wanted.cpu_shares.as_ref()),
            cpuset_cpus: only(self.cpuset_cpus, wanted.cpuset_cpus.as_ref()),
            cpuset_mems: only(self.cpuset_mems, wanted.cpuset_mems.as_ref()),
            memory_limit: only(self.memory_limit, wanted.memory_limit.as_ref()),
            memory_swap: only(self.memory_swap, wanted.memory_swap.as_ref()),
            memory_reservation: only(self.memory_reservation, wanted.memory_reservation.as_ref()),
            pids_limit: only(self.pids_limit, wanted.pids_limit.as_ref()),
            ..Resources::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v2_files_are_read_in_the_terms_of_cri() {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("cpu.max", "50000 100000\n"),
            ("cpu.weight", "100\n"),
            ("memory.max", "1048576\n"),
            ("memory.swap.max", "1048576\n"),
            ("pids.max", "max\n"),
            ("hugetlb.2MB.max", "0\n"),
            ("hugetlb.1GB.max", "max\n"),
            ("hugetlb.2MB.rsvd.max", "0\n"),
        ] {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        let found = read_v2(dir.path());
        assert_eq!(found.cpu_quota, Some(50_000));
        assert_eq!(found.cpu_period, Some(100_000));
        assert_eq!(found.memory_limit, Some(1 << 20));
        assert_eq!(found.memory_swap, Some(2 << 20));
        assert_eq!(found.pids_limit, Some(-1));
        assert_eq!(found.hugepage_limits, [("2MB".to_owned(), 0)]);
    }

    #[test]
    fn no_limit_is_minus_one() {
        assert_eq!(unlimited_as_minus_one(0x7fff_ffff_ffff_f000), -1);
        assert_eq!(unlimited_as_minus_one(4096), 4096);
        assert_eq!(max_as_minus_one("max"), Some(-1));
    }
}
