//! The metrics there are, with their labels.

use joey_proto::cri::{MetricDescriptor, MetricType};

/// Labels of every metric, in this order, before a metric's own.
pub(super) const BASE_LABELS: [&str; 6] = ["id", "name", "image", "container", "namespace", "pod"];

/// One metric.
#[derive(Debug)]
pub(super) struct Descriptor {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    /// After the labels of every metric.
    pub(super) labels: &'static [&'static str],
    pub(super) kind: MetricType,
}

/// Writes a static for each metric, and the list of them all.
macro_rules! metrics {
    ($($id:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) static $id: Descriptor = Descriptor {
            name: $name,
            help: $help,
            labels: &[$($label),*],
            kind: MetricType::$kind,
        };)*
        static ALL: &[&Descriptor] = &[$(&$id),*];
    };
}

metrics! {
    BLKIO_USAGE: Counter "container_blkio_device_usage_total"
        ["device", "major", "minor", "operation"] "Bytes moved from and to a block device.";
    CPU_PERIODS: Counter "container_cpu_cfs_periods_total"
        [] "CPU quota periods that passed.";
    CPU_THROTTLED_PERIODS: Counter "container_cpu_cfs_throttled_periods_total"
        [] "CPU quota periods in which the quota was used up.";
    CPU_THROTTLED: Counter "container_cpu_cfs_throttled_seconds_total"
        [] "Seconds of waiting for CPU quota.";
    CPU_SYSTEM: Counter "container_cpu_system_seconds_total"
        [] "Seconds of CPU time in the kernel.";
    CPU_USAGE: Counter "container_cpu_usage_seconds_total"
        ["cpu"] "Seconds of CPU time.";
    CPU_USER: Counter "container_cpu_user_seconds_total"
        [] "Seconds of CPU time in user mode.";
    FILE_DESCRIPTORS: Gauge "container_file_descriptors"
        [] "Open file descriptors.";
    FS_INODES_FREE: Gauge "container_fs_inodes_free"
        ["device"] "Free inodes of the writable layer's file system.";
    FS_INODES_TOTAL: Gauge "container_fs_inodes_total"
        ["device"] "Inodes of the writable layer's file system.";
    FS_LIMIT: Gauge "container_fs_limit_bytes"
        ["device"] "Bytes of the writable layer's file system.";
    FS_READ_BYTES: Counter "container_fs_reads_bytes_total"
        ["device"] "Bytes read from a device.";
    FS_READS: Counter "container_fs_reads_total"
        ["device"] "Reads of a device.";
    FS_USAGE: Gauge "container_fs_usage_bytes"
        ["device"] "Bytes of the writable layer.";
    FS_WRITE_BYTES: Counter "container_fs_writes_bytes_total"
        ["device"] "Bytes written to a device.";
    FS_WRITES: Counter "container_fs_writes_total"
        ["device"] "Writes to a device.";
    HUGETLB_MAX: Gauge "container_hugetlb_max_usage_bytes"
        ["pagesize"] "The most bytes of huge pages that were in use.";
    HUGETLB_USAGE: Gauge "container_hugetlb_usage_bytes"
        ["pagesize"] "Bytes of huge pages.";
    LAST_SEEN: Gauge "container_last_seen"
        [] "When the container was last seen, in seconds since the epoch.";
    MEMORY_CACHE: Gauge "container_memory_cache"
        [] "Bytes of the page cache.";
    MEMORY_FAILCNT: Counter "container_memory_failcnt"
        [] "How often the memory limit was reached.";
    MEMORY_FAILURES: Counter "container_memory_failures_total"
        ["failure_type", "scope"] "Page faults.";
    MEMORY_KERNEL: Gauge "container_memory_kernel_usage"
        [] "Bytes of kernel memory.";
    MEMORY_MAPPED_FILE: Gauge "container_memory_mapped_file"
        [] "Bytes of mapped files.";
    MEMORY_MAX: Gauge "container_memory_max_usage_bytes"
        [] "The most bytes of memory that were in use.";
    MEMORY_RSS: Gauge "container_memory_rss"
        [] "Bytes of anonymous memory.";
    MEMORY_SWAP: Gauge "container_memory_swap"
        [] "Bytes swapped out.";
    MEMORY_USAGE: Gauge "container_memory_usage_bytes"
        [] "Bytes of memory, the page cache included.";
    MEMORY_WORKING_SET: Gauge "container_memory_working_set_bytes"
        [] "Bytes of memory that can't be dropped at once.";
    NETWORK_RX_BYTES: Counter "container_network_receive_bytes_total"
        ["interface"] "Bytes received.";
    NETWORK_RX_ERRORS: Counter "container_network_receive_errors_total"
        ["interface"] "Errors while receiving.";
    NETWORK_RX_DROPPED: Counter "container_network_receive_packets_dropped_total"
        ["interface"] "Packets dropped while receiving.";
    NETWORK_RX_PACKETS: Counter "container_network_receive_packets_total"
        ["interface"] "Packets received.";
    NETWORK_TX_BYTES: Counter "container_network_transmit_bytes_total"
        ["interface"] "Bytes sent.";
    NETWORK_TX_ERRORS: Counter "container_network_transmit_errors_total"
        ["interface"] "Errors while sending.";
    NETWORK_TX_DROPPED: Counter "container_network_transmit_packets_dropped_total"
        ["interface"] "Packets dropped while sending.";
    NETWORK_TX_PACKETS: Counter "container_network_transmit_packets_total"
        ["interface"] "Packets sent.";
    OOM_EVENTS: Counter "container_oom_events_total"
        [] "Processes killed for memory.";
    PRESSURE_CPU_STALLED: Counter "container_pressure_cpu_stalled_seconds_total"
        [] "Seconds in which every task waited for a CPU.";
    PRESSURE_CPU_WAITING: Counter "container_pressure_cpu_waiting_seconds_total"
        [] "Seconds in which a task waited for a CPU.";
    PRESSURE_IO_STALLED: Counter "container_pressure_io_stalled_seconds_total"
        [] "Seconds in which every task waited for disks.";
    PRESSURE_IO_WAITING: Counter "container_pressure_io_waiting_seconds_total"
        [] "Seconds in which a task waited for disks.";
    PRESSURE_MEMORY_STALLED: Counter "container_pressure_memory_stalled_seconds_total"
        [] "Seconds in which every task waited for memory.";
    PRESSURE_MEMORY_WAITING: Counter "container_pressure_memory_waiting_seconds_total"
        [] "Seconds in which a task waited for memory.";
    PROCESSES: Gauge "container_processes"
        [] "Processes.";
    SOCKETS: Gauge "container_sockets"
        [] "Open sockets.";
    SPEC_CPU_PERIOD: Gauge "container_spec_cpu_period"
        [] "The CPU quota's period in microseconds.";
    SPEC_CPU_QUOTA: Gauge "container_spec_cpu_quota"
        [] "Microseconds of CPU time per period, 0 without a limit.";
    SPEC_CPU_SHARES: Gauge "container_spec_cpu_shares"
        [] "The CPU shares.";
    SPEC_MEMORY_LIMIT: Gauge "container_spec_memory_limit_bytes"
        [] "The memory limit in bytes, 0 without one.";
    SPEC_MEMORY_RESERVATION: Gauge "container_spec_memory_reservation_limit_bytes"
        [] "The memory reservation in bytes, 0 without one.";
    SPEC_SWAP_LIMIT: Gauge "container_spec_memory_swap_limit_bytes"
        [] "The limit of memory and swap in bytes, 0 without one.";
    START_TIME: Gauge "container_start_time_seconds"
        [] "When the container was started, in seconds since the epoch.";
    THREADS: Gauge "container_threads"
        [] "Threads.";
    THREADS_MAX: Gauge "container_threads_max"
        [] "The most threads allowed, 0 without a limit.";
    ULIMITS_SOFT: Gauge "container_ulimits_soft"
        ["ulimit"] "Soft limits of the container's first process.";
}

/// The descriptors; they never change.
pub(crate) fn descriptors() -> Vec<MetricDescriptor> {
    ALL.iter()
        .map(|metric| MetricDescriptor {
            name: metric.name.to_owned(),
            help: metric.help.to_owned(),
            label_keys: BASE_LABELS
                .iter()
                .chain(metric.labels)
                .map(ToString::to_string)
                .collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn there_are_56_metrics_with_help_and_labels() {
        let all = descriptors();
        let names: BTreeSet<_> = all.iter().map(|metric| &metric.name).collect();
        assert_eq!(names.len(), 56);
        assert_eq!(all.len(), 56);
        for metric in &all {
            assert!(
                !metric.help.is_empty() && metric.label_keys.len() >= 6,
                "{metric:?}"
            );
            let keys: BTreeSet<_> = metric.label_keys.iter().collect();
            assert_eq!(keys.len(), metric.label_keys.len(), "{metric:?}");
        }
    }

    #[test]
    fn counters_end_in_total_and_gauges_do_not() {
        for metric in ALL {
            let counter = metric.name.ends_with("_total") || metric.name.ends_with("_failcnt");
            // How many there are on the whole, not how often something happened.
            let counter = counter && metric.name != FS_INODES_TOTAL.name;
            assert_eq!(
                metric.kind == MetricType::Counter,
                counter,
                "{}",
                metric.name
            );
        }
    }
}
