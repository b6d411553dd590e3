//! The samples of a container.

use joey_proto::cri::ContainerMetrics;
use joey_runtime::ContainerStats;
use joey_runtime::model::{ContainerRecord, PodConfig};

use super::descriptors as metric;
use super::samples::{Labels, Samples};
use crate::operation::now;

/// The period of the CPU quota where none is given.
const DEFAULT_PERIOD: u64 = 100_000;
const NANOSECONDS: i64 = 1_000_000_000;

/// The samples of a running container.
pub(crate) fn container_metrics(
    record: &ContainerRecord,
    pod: &PodConfig,
    image: &str,
    stats: &ContainerStats,
) -> ContainerMetrics {
    let group = &record.cgroup;
    let path = group.path();
    let path = path.to_string_lossy();
    let mut samples = Samples::new(&Labels {
        id: &path,
        name: &record.id,
        image,
        container: &record.config.name,
        namespace: &pod.namespace,
        pod: &pod.name,
    });
    if let Some(cpu) = &stats.cgroup.cpu {
        samples.cpu(cpu);
    }
    if let Some(memory) = &stats.cgroup.memory {
        samples.memory(memory);
    }
    if let Some(psi) = group.psi() {
        samples.pressure(&psi);
    }
    samples.io(&stats.cgroup.io);
    if let Some(layer) = &stats.writable_layer {
        samples.layer(layer);
    }
    for pages in group.hugetlb_stats() {
        let size = [pages.page_size.as_str()];
        samples.add(&metric::HUGETLB_USAGE, &size, pages.usage);
        samples.add(&metric::HUGETLB_MAX, &size, pages.max_usage);
    }
    let pids = group.processes();
    samples.processes(&pids);
    threads(&mut samples, stats, &pids);
    if let Some(started) = &record.started {
        samples.limits(started.pid);
        samples.add(&metric::START_TIME, &[], positive(started.at / NANOSECONDS));
    }
    samples.add(&metric::LAST_SEEN, &[], positive(now() / NANOSECONDS));
    spec(&mut samples, record);
    ContainerMetrics {
        container_id: record.id.clone(),
        metrics: samples.into_metrics(),
    }
}

/// Without the controller that counts threads, `/proc` is asked.
fn threads(samples: &mut Samples<'_>, stats: &ContainerStats, pids: &[i32]) {
    let (threads, limit) = match &stats.cgroup.pids {
        Some(pids) => (pids.threads, pids.limit.unwrap_or(0)),
        None => {
            let of =
                |pid: &i32| std::fs::read_dir(format!("/proc/{pid}/task")).map(Iterator::count);
            let count: usize = pids.iter().filter_map(|pid| of(pid).ok()).sum();
            (u64::try_from(count).unwrap_or(u64::MAX), 0)
        }
    };
    samples.add(&metric::THREADS, &[], threads);
    samples.add(&metric::THREADS_MAX, &[], limit);
}

fn spec(samples: &mut Samples<'_>, record: &ContainerRecord) {
    let resources = &record.resources();
    for (metric, value) in [
        (
            &metric::SPEC_CPU_PERIOD,
            resources.cpu_period.unwrap_or(DEFAULT_PERIOD),
        ),
        (
            &metric::SPEC_CPU_QUOTA,
            positive(resources.cpu_quota.unwrap_or(0)),
        ),
        (&metric::SPEC_CPU_SHARES, resources.cpu_shares.unwrap_or(0)),
        (
            &metric::SPEC_MEMORY_LIMIT,
            positive(resources.memory_limit.unwrap_or(0)),
        ),
        (
            &metric::SPEC_MEMORY_RESERVATION,
            positive(resources.memory_reservation.unwrap_or(0)),
        ),
        (
            &metric::SPEC_SWAP_LIMIT,
            positive(resources.memory_swap.unwrap_or(0)),
        ),
    ] {
        samples.add(metric, &[], value);
    }
}

/// "No limit" is a negative number to the kernel and zero to readers of metrics.
fn positive(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
