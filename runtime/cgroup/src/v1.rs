//! Limits as writes into v1 hierarchies.

use std::path::{Path, PathBuf};

use crate::files;
use crate::layout::Layout;
use crate::plan::{PlanError, Write, checked_page_size, max_or};
use crate::resources::{Resources, ThrottleKind, given};

/// The folder of a group in the hierarchy of `controller`, or the error that names it.
struct Dirs<'a> {
    layout: &'a Layout,
    path: &'a Path,
}

impl Dirs<'_> {
    fn file(&self, controller: &str, name: &str) -> Result<PathBuf, PlanError> {
        match self.layout.v1_root(controller) {
            Some(root) => Ok(root.join(self.path).join(name)),
            None => Err(PlanError::MissingController {
                controller: controller.to_owned(),
                setting: name.to_owned(),
            }),
        }
    }

    fn write(
        &self,
        controller: &str,
        name: &str,
        value: impl ToString,
    ) -> Result<Write, PlanError> {
        let path = self.file(controller, name)?;
        Ok(Write::new(controller, path, value))
    }
}

/// Everything but devices, in an order that mostly is accepted at once.
pub(crate) fn plan(
    layout: &Layout,
    path: &Path,
    wanted: &Resources,
) -> Result<Vec<Write>, PlanError> {
    if let Some(key) = wanted.unified.keys().next() {
        return Err(PlanError::UnifiedOnV1 { key: key.clone() });
    }
    let dirs = Dirs { layout, path };
    let mut writes = Vec::new();
    cpu(&dirs, wanted, &mut writes)?;
    memory(&dirs, wanted, &mut writes)?;
    if let Some(limit) = given(wanted.pids_limit) {
        writes.push(dirs.write("pids", "pids.max", max_or(limit))?);
    }
    hugepages(&dirs, wanted, &mut writes)?;
    blkio(&dirs, wanted, &mut writes)?;
    Ok(writes)
}

fn cpu(dirs: &Dirs<'_>, wanted: &Resources, writes: &mut Vec<Write>) -> Result<(), PlanError> {
    if let Some(idle) = wanted.cpu_idle {
        writes.push(dirs.write("cpu", "cpu.idle", u8::from(idle))?);
    }
    if let Some(shares) = given(wanted.cpu_shares) {
        writes.push(dirs.write("cpu", "cpu.shares", shares)?);
    }
    if let Some(period) = given(wanted.cpu_period) {
        writes.push(dirs.write("cpu", "cpu.cfs_period_us", period)?);
    }
    if let Some(quota) = given(wanted.cpu_quota) {
        writes.push(dirs.write("cpu", "cpu.cfs_quota_us", quota.max(-1))?);
    }
    if let Some(burst) = wanted.cpu_burst {
        writes.push(dirs.write("cpu", "cpu.cfs_burst_us", burst)?);
    }
    for (list, name) in [
        (&wanted.cpuset_cpus, "cpuset.cpus"),
        (&wanted.cpuset_mems, "cpuset.mems"),
    ] {
        if let Some(list) = list.as_deref().filter(|l| !l.is_empty()) {
            writes.push(dirs.write("cpuset", name, list)?);
        }
    }
    Ok(())
}

fn memory(dirs: &Dirs<'_>, wanted: &Resources, writes: &mut Vec<Write>) -> Result<(), PlanError> {
    let limit = given(wanted.memory_limit).map(|l| l.max(-1));
    // Memory without a limit under a limit of memory and swap is refused by the kernel.
    let swap = match (limit, given(wanted.memory_swap)) {
        (Some(-1), None) => Some(-1),
        (_, swap) => swap.map(|s| s.max(-1)),
    };
    if let Some(limit) = limit {
        writes.push(dirs.write("memory", "memory.limit_in_bytes", limit)?);
    }
    if let Some(total) = swap {
        // Without swap accounting the file is missing; no limit, and no swap beside the memory
        // limit on a host that can't tell them apart, need no write.
        let harmless = total == -1 || Some(total) == limit;
        let write = dirs.write("memory", "memory.memsw.limit_in_bytes", total)?;
        writes.push(write.optional(harmless));
    }
    if let Some(soft) = given(wanted.memory_reservation) {
        writes.push(dirs.write("memory", "memory.soft_limit_in_bytes", soft.max(-1))?);
    }
    // Without a limit of memory this is all that v1 has to keep a group from swap.
    let swappiness = wanted.swappiness.or_else(|| match wanted.no_swap? {
        true => Some(0),
        false => files::read_number(Path::new("/proc/sys/vm/swappiness")),
    });
    if let Some(swappiness) = swappiness {
        writes.push(dirs.write("memory", "memory.swappiness", swappiness)?);
    }
    Ok(())
}

/// Without the controller these are left out: see [`crate::Cgroups::left_out`].
fn hugepages(
    dirs: &Dirs<'_>,
    wanted: &Resources,
    writes: &mut Vec<Write>,
) -> Result<(), PlanError> {
    if dirs.layout.v1_root("hugetlb").is_none() {
        return Ok(());
    }
    for (size, bytes) in &wanted.hugepage_limits {
        let size = checked_page_size(size)?;
        let name = format!("hugetlb.{size}.limit_in_bytes");
        writes.push(dirs.write("hugetlb", &name, bytes)?);
        let name = format!("hugetlb.{size}.rsvd.limit_in_bytes");
        writes.push(dirs.write("hugetlb", &name, bytes)?.optional(true));
    }
    Ok(())
}

fn blkio(dirs: &Dirs<'_>, wanted: &Resources, writes: &mut Vec<Write>) -> Result<(), PlanError> {
    if let Some(weight) = given(wanted.blkio_weight) {
        let name = weight_file(dirs)?;
        writes.push(dirs.write("blkio", name, weight)?);
    }
    for device in &wanted.blkio_weight_devices {
        let name = format!("{}_device", weight_file(dirs)?);
        let key = format!("{}:{}", device.major, device.minor);
        let write = dirs.write("blkio", &name, format!("{key} {}", device.weight))?;
        writes.push(write.line(key.clone(), format!("{key} 0")));
    }
    for throttle in &wanted.blkio_throttles {
        let name = match throttle.kind {
            ThrottleKind::ReadBps => "blkio.throttle.read_bps_device",
            ThrottleKind::WriteBps => "blkio.throttle.write_bps_device",
            ThrottleKind::ReadIops => "blkio.throttle.read_iops_device",
            ThrottleKind::WriteIops => "blkio.throttle.write_iops_device",
        };
        let key = format!("{}:{}", throttle.major, throttle.minor);
        let write = dirs.write("blkio", name, format!("{key} {}", throttle.rate))?;
        writes.push(write.line(key.clone(), format!("{key} 0")));
    }
    Ok(())
}

/// CFQ's file on old kernels, BFQ's on newer ones.
fn weight_file(dirs: &Dirs<'_>) -> Result<&'static str, PlanError> {
    let old = dirs.file("blkio", "blkio.weight")?;
    Ok(if old.exists() {
        "blkio.weight"
    } else {
        "blkio.bfq.weight"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
32 31 0:29 / /c/cpu rw - cgroup cgroup rw,cpu
35 31 0:32 / /c/memory rw - cgroup cgroup rw,memory
";

    fn planned(wanted: &Resources) -> Result<Vec<(String, String)>, PlanError> {
        let layout = Layout::parse(MOUNTS).unwrap();
        let writes = plan(&layout, Path::new("pods/a"), wanted)?;
        Ok(writes
            .into_iter()
            .map(|w| (w.path.to_string_lossy().into_owned(), w.value))
            .collect())
    }

    #[test]
    fn removing_the_memory_limit_removes_that_of_memory_and_swap() {
        let wanted = Resources {
            memory_limit: Some(-1),
            ..Resources::default()
        };
        let expected = [
            ("/c/memory/pods/a/memory.limit_in_bytes", "-1"),
            ("/c/memory/pods/a/memory.memsw.limit_in_bytes", "-1"),
        ]
        .map(|(p, v)| (p.to_owned(), v.to_owned()));
        assert_eq!(planned(&wanted).unwrap(), expected);
    }

    #[test]
    fn without_a_limit_no_swap_is_a_swappiness_of_0() {
        let wanted = Resources {
            no_swap: Some(true),
            ..Resources::default()
        };
        let expected = (
            "/c/memory/pods/a/memory.swappiness".to_owned(),
            "0".to_owned(),
        );
        assert_eq!(planned(&wanted).unwrap(), [expected]);
    }

    #[test]
    fn zero_means_not_given() {
        let wanted = Resources {
            cpu_period: Some(0),
            cpu_quota: Some(0),
            cpu_shares: Some(0),
            memory_limit: Some(0),
            memory_swap: Some(0),
            pids_limit: Some(0),
            cpuset_cpus: Some(String::new()),
            ..Resources::default()
        };
        assert_eq!(planned(&wanted).unwrap(), []);
    }

    #[test]
    fn a_limit_without_its_controller_names_both() {
        let wanted = Resources {
            pids_limit: Some(10),
            ..Resources::default()
        };
        let error = planned(&wanted).unwrap_err();
        assert_eq!(
            error.to_string(),
            "pids.max can't be set: this host's cgroup \"pids\" controller is missing"
        );
    }

    #[test]
    fn hugepage_limits_without_the_controller_are_left_out() {
        let wanted = Resources {
            hugepage_limits: vec![("2MB".to_owned(), 0)],
            ..Resources::default()
        };
        assert_eq!(planned(&wanted).unwrap(), []);
    }

    #[test]
    fn unified_is_refused_by_its_key() {
        let wanted = Resources {
            unified: [("memory.high".to_owned(), "1".to_owned())].into(),
            ..Resources::default()
        };
        assert_eq!(
            planned(&wanted),
            Err(PlanError::UnifiedOnV1 {
                key: "memory.high".to_owned()
            })
        );
    }
}
