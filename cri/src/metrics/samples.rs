//! Collects the samples of one object.

use joey_cgroup::{CpuStats, MemoryStats, Pressure, PressureTimes, Psi};
use joey_proto::cri::{Metric, UInt64Value};

use super::descriptors::{self as metric, Descriptor};

const NANOSECONDS: u64 = 1_000_000_000;

/// Whose samples they are.
#[derive(Debug, Default)]
pub(super) struct Labels<'a> {
    /// Path of the cgroup.
    pub(super) id: &'a str,
    /// Id of the container or pod.
    pub(super) name: &'a str,
    pub(super) image: &'a str,
    /// Empty for a pod.
    pub(super) container: &'a str,
    pub(super) namespace: &'a str,
    pub(super) pod: &'a str,
}

/// The samples of one container or pod.
#[derive(Debug)]
pub(super) struct Samples<'a> {
    labels: [&'a str; 6],
    collected: Vec<Metric>,
}

impl<'a> Samples<'a> {
    pub(super) fn new(labels: &Labels<'a>) -> Self {
        let Labels {
            id,
            name,
            image,
            container,
            namespace,
            pod,
        } = *labels;
        Self {
            labels: [id, name, image, container, namespace, pod],
            collected: Vec::new(),
        }
    }

    pub(super) fn into_metrics(self) -> Vec<Metric> {
        self.collected
    }

    /// Adds a sample, with a value for each of the metric's own labels.
    pub(super) fn add(&mut self, metric: &Descriptor, labels: &[&str], value: u64) {
        debug_assert_eq!(labels.len(), metric.labels.len(), "{}", metric.name);
        self.collected.push(Metric {
            name: metric.name.to_owned(),
            // Read now, not kept from before.
            timestamp: 0,
            metric_type: metric.kind as i32,
            label_values: self
                .labels
                .iter()
                .chain(labels)
                .map(ToString::to_string)
                .collect(),
            value: Some(UInt64Value { value }),
        });
    }

    fn seconds(&mut self, metric: &Descriptor, ns: u64) {
        self.add(metric, &[], ns / NANOSECONDS);
    }

    pub(super) fn cpu(&mut self, cpu: &CpuStats) {
        self.add(&metric::CPU_USAGE, &["total"], cpu.usage_ns / NANOSECONDS);
        self.seconds(&metric::CPU_USER, cpu.user_ns);
        self.seconds(&metric::CPU_SYSTEM, cpu.system_ns);
        self.add(&metric::CPU_PERIODS, &[], cpu.periods);
        self.add(&metric::CPU_THROTTLED_PERIODS, &[], cpu.throttled_periods);
        self.seconds(&metric::CPU_THROTTLED, cpu.throttled_ns);
    }

    pub(super) fn memory(&mut self, memory: &MemoryStats) {
        for (metric, value) in [
            (&metric::MEMORY_USAGE, memory.usage),
            (&metric::MEMORY_MAX, memory.max_usage.unwrap_or(0)),
            (&metric::MEMORY_WORKING_SET, memory.working_set),
            (&metric::MEMORY_RSS, memory.rss),
            (&metric::MEMORY_CACHE, memory.cache),
            (&metric::MEMORY_MAPPED_FILE, memory.mapped_file),
            (&metric::MEMORY_KERNEL, memory.kernel),
            (&metric::MEMORY_SWAP, memory.swap.unwrap_or(0)),
            (&metric::MEMORY_FAILCNT, memory.limit_hits),
            (&metric::OOM_EVENTS, memory.oom_kills),
        ] {
            self.add(metric, &[], value);
        }
        // Where the kernel does not count the group alone, there is only the sum.
        let own = memory.own_page_faults.unwrap_or(memory.page_faults);
        let own_major = memory
            .own_major_page_faults
            .unwrap_or(memory.major_page_faults);
        for (kind, scope, value) in [
            ("pgfault", "container", own),
            ("pgmajfault", "container", own_major),
            ("pgfault", "hierarchy", memory.page_faults),
            ("pgmajfault", "hierarchy", memory.major_page_faults),
        ] {
            self.add(&metric::MEMORY_FAILURES, &[kind, scope], value);
        }
    }

    pub(super) fn pressure(&mut self, psi: &Psi) {
        for (pressure, waiting, stalled) in [
            (
                psi.cpu,
                &metric::PRESSURE_CPU_WAITING,
                &metric::PRESSURE_CPU_STALLED,
            ),
            (
                psi.memory,
                &metric::PRESSURE_MEMORY_WAITING,
                &metric::PRESSURE_MEMORY_STALLED,
            ),
            (
                psi.io,
                &metric::PRESSURE_IO_WAITING,
                &metric::PRESSURE_IO_STALLED,
            ),
        ] {
            let Some(Pressure { some, full }) = pressure else {
                continue;
            };
            let ns = |times: PressureTimes| times.total_ns;
            self.seconds(waiting, ns(some));
            self.seconds(stalled, ns(full));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn every_sample_has_as_many_labels_as_its_descriptor() {
        let labels = Labels {
            id: "/g",
            name: "c1",
            pod: "web",
            ..Labels::default()
        };
        let mut samples = Samples::new(&labels);
        samples.cpu(&CpuStats {
            usage_ns: 2_500_000_000,
            ..CpuStats::default()
        });
        samples.memory(&MemoryStats::default());
        let pressure = Some(Pressure::default());
        samples.pressure(&Psi {
            cpu: pressure,
            memory: pressure,
            io: pressure,
        });
        samples.io(&[]);
        samples.processes(&[]);
        let keys: HashMap<_, _> = metric::descriptors()
            .into_iter()
            .map(|metric| (metric.name, metric.label_keys.len()))
            .collect();
        let collected = samples.into_metrics();
        for sample in &collected {
            assert_eq!(
                sample.label_values.len(),
                keys[&sample.name],
                "{}",
                sample.name
            );
            assert!(sample.value.is_some() && sample.timestamp == 0);
        }
        assert_eq!(
            collected[0].label_values,
            ["/g", "c1", "", "", "", "web", "total"]
        );
        assert_eq!(collected[0].value, Some(UInt64Value { value: 2 }));
    }
}
