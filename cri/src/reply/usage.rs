//! Stats of containers and pods.

use joey_cgroup::{MemoryStats, Pressure, PressureTimes, Psi};
use joey_network::netns::InterfaceStats;
use joey_proto::cri;
use joey_proto::cri::UInt64Value;
use joey_runtime::model::{ContainerRecord, PodRecord};
use joey_runtime::{ContainerUsage, LayerUsage, PodStats};

use super::{pod_attributes, unsorted};

/// A container as its stats name it.
pub(crate) fn container_attributes(record: &ContainerRecord) -> cri::ContainerAttributes {
    cri::ContainerAttributes {
        id: record.id.clone(),
        metadata: Some(cri::ContainerMetadata {
            name: record.config.name.clone(),
            attempt: record.config.attempt,
        }),
        labels: unsorted(&record.config.labels),
        annotations: unsorted(&record.config.annotations),
    }
}

/// A container's stats.
pub(crate) fn container_stats(
    record: &ContainerRecord,
    stats: &ContainerUsage,
) -> cri::ContainerStats {
    let psi = stats.cgroup.psi.as_ref();
    let at = timestamp(stats.cgroup.timestamp_ns);
    let memory = stats.cgroup.memory.as_ref();
    cri::ContainerStats {
        attributes: Some(container_attributes(record)),
        cpu: stats.cgroup.cpu_usage_ns.map(|usage| cpu(usage, at, psi)),
        memory: memory.map(|usage| memory_usage(usage, at, psi)),
        writable_layer: stats.writable_layer.as_ref().map(layer),
        swap: memory.and_then(|usage| swap(usage, at)),
        io: io(at, psi),
    }
}

/// A pod's stats, with those of its containers.
pub(crate) fn pod_stats(
    record: &PodRecord,
    stats: &PodStats,
    psi: Option<&Psi>,
    processes: u64,
    containers: Vec<cri::ContainerStats>,
) -> cri::PodSandboxStats {
    let at = timestamp(stats.cgroup.timestamp_ns).max(stats.timestamp_ns);
    let main = record
        .network
        .as_ref()
        .map(|attachment| attachment.interface.as_str());
    cri::PodSandboxStats {
        attributes: Some(pod_attributes(record)),
        linux: Some(cri::LinuxPodSandboxStats {
            cpu: stats
                .cgroup
                .cpu
                .as_ref()
                .map(|usage| cpu(usage.usage_ns, at, psi)),
            memory: stats
                .cgroup
                .memory
                .as_ref()
                .map(|usage| memory_usage(usage, at, psi)),
            network: network(&stats.interfaces, main, stats.timestamp_ns),
            process: Some(cri::ProcessUsage {
                timestamp: at,
                process_count: value(processes),
            }),
            containers,
            io: io(at, psi),
        }),
        windows: None,
    }
}

#[allow(
    clippy::unnecessary_wraps,
    reason = "CRI's fields of this type are optional"
)]
fn value(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

fn timestamp(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

/// No rate: one reading says nothing about it.
fn cpu(usage_ns: u64, at: i64, psi: Option<&Psi>) -> cri::CpuUsage {
    cri::CpuUsage {
        timestamp: at,
        usage_core_nano_seconds: value(usage_ns),
        usage_nano_cores: None,
        psi: psi.and_then(|psi| psi.cpu.as_ref()).map(pressure),
    }
}

fn memory_usage(usage: &MemoryStats, at: i64, psi: Option<&Psi>) -> cri::MemoryUsage {
    cri::MemoryUsage {
        timestamp: at,
        working_set_bytes: value(usage.working_set),
        available_bytes: usage.available.and_then(value),
        usage_bytes: value(usage.usage),
        rss_bytes: value(usage.rss),
        page_faults: value(usage.page_faults),
        major_page_faults: value(usage.major_page_faults),
        psi: psi.and_then(|psi| psi.memory.as_ref()).map(pressure),
    }
}

fn swap(usage: &MemoryStats, at: i64) -> Option<cri::SwapUsage> {
    usage.swap.map(|bytes| cri::SwapUsage {
        timestamp: at,
        swap_available_bytes: usage.swap_available.and_then(value),
        swap_usage_bytes: value(bytes),
    })
}

fn io(at: i64, psi: Option<&Psi>) -> Option<cri::IoUsage> {
    let psi = psi.and_then(|psi| psi.io.as_ref()).map(pressure);
    psi.map(|psi| cri::IoUsage {
        timestamp: at,
        psi: Some(psi),
    })
}

fn pressure(pressure: &Pressure) -> cri::PsiStats {
    cri::PsiStats {
        full: Some(times(pressure.full)),
        some: Some(times(pressure.some)),
    }
}

fn times(times: PressureTimes) -> cri::PsiData {
    cri::PsiData {
        total: times.total_ns,
        avg10: times.avg10,
        avg60: times.avg60,
        avg300: times.avg300,
    }
}

fn layer(layer: &LayerUsage) -> cri::FilesystemUsage {
    cri::FilesystemUsage {
        timestamp: layer.timestamp_ns,
        fs_id: Some(cri::FilesystemIdentifier {
            mountpoint: layer.path.to_string_lossy().into_owned(),
        }),
        used_bytes: value(layer.used_bytes),
        inodes_used: value(layer.inodes_used),
    }
}

/// The main interface and the others, without the loopback; None with the host's network.
fn network(
    interfaces: &[InterfaceStats],
    main: Option<&str>,
    at: i64,
) -> Option<cri::NetworkUsage> {
    let mut outer: Vec<_> = interfaces.iter().filter(|link| link.name != "lo").collect();
    if outer.is_empty() {
        return None;
    }
    let first = outer
        .iter()
        .position(|link| Some(link.name.as_str()) == main)
        .unwrap_or(0);
    let default_interface = Some(interface(outer.remove(first)));
    Some(cri::NetworkUsage {
        timestamp: at,
        default_interface,
        interfaces: outer.into_iter().map(interface).collect(),
    })
}

fn interface(stats: &InterfaceStats) -> cri::NetworkInterfaceUsage {
    cri::NetworkInterfaceUsage {
        name: stats.name.clone(),
        rx_bytes: value(stats.rx_bytes),
        rx_errors: value(stats.rx_errors),
        tx_bytes: value(stats.tx_bytes),
        tx_errors: value(stats.tx_errors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn psi() -> Psi {
        let of = |n: u64| {
            let times = |total_ns| PressureTimes {
                total_ns,
                avg10: 1.0,
                avg60: 2.0,
                avg300: 3.0,
            };
            Some(Pressure {
                some: times(n),
                full: times(n + 1),
            })
        };
        Psi {
            cpu: of(10),
            memory: of(20),
            io: of(30),
        }
    }

    #[test]
    fn processor_time_is_not_made_a_rate() {
        let usage = cpu(5, 7, Some(&psi()));
        assert_eq!(
            (usage.timestamp, usage.usage_core_nano_seconds),
            (7, value(5))
        );
        assert_eq!(usage.usage_nano_cores, None);
        let pressure = usage.psi.unwrap();
        let some = pressure.some.unwrap();
        assert_eq!(
            (some.total, some.avg10, some.avg60, some.avg300),
            (10, 1.0, 2.0, 3.0)
        );
        assert_eq!(pressure.full.unwrap().total, 11);
    }

    #[test]
    fn every_memory_field_is_mapped() {
        let stats = MemoryStats {
            usage: 1,
            working_set: 2,
            rss: 3,
            available: Some(4),
            page_faults: 5,
            major_page_faults: 6,
            swap: Some(7),
            swap_available: Some(8),
            ..Default::default()
        };
        let usage = memory_usage(&stats, 9, Some(&psi()));
        assert_eq!(usage.timestamp, 9);
        assert_eq!(usage.usage_bytes, value(1));
        assert_eq!(usage.working_set_bytes, value(2));
        assert_eq!(usage.rss_bytes, value(3));
        assert_eq!(usage.available_bytes, value(4));
        assert_eq!(usage.page_faults, value(5));
        assert_eq!(usage.major_page_faults, value(6));
        assert_eq!(usage.psi.unwrap().some.unwrap().total, 20);
        let swap = swap(&stats, 9).unwrap();
        assert_eq!(
            (swap.swap_usage_bytes, swap.swap_available_bytes),
            (value(7), value(8))
        );
    }

    #[test]
    fn what_is_not_limited_has_nothing_available() {
        let usage = memory_usage(&MemoryStats::default(), 1, None);
        assert_eq!((usage.available_bytes, usage.psi), (None, None));
        assert_eq!(swap(&MemoryStats::default(), 1), None);
        assert_eq!(io(1, None), None);
        assert_eq!(
            io(1, Some(&psi()))
                .unwrap()
                .psi
                .unwrap()
                .some
                .unwrap()
                .total,
            30
        );
    }

    #[test]
    fn the_main_interface_is_the_attachments() {
        let link = |name: &str, rx_bytes| InterfaceStats {
            name: name.into(),
            rx_bytes,
            rx_errors: 2,
            tx_bytes: 3,
            tx_errors: 4,
            ..Default::default()
        };
        let links = [link("lo", 1), link("net1", 2), link("eth0", 3)];
        let usage = network(&links, Some("eth0"), 5).unwrap();
        assert_eq!(usage.timestamp, 5);
        let main = usage.default_interface.unwrap();
        assert_eq!(
            (main.name.as_str(), main.rx_bytes, main.rx_errors),
            ("eth0", value(3), value(2))
        );
        assert_eq!((main.tx_bytes, main.tx_errors), (value(3), value(4)));
        assert_eq!(usage.interfaces.len(), 1);
        assert_eq!(usage.interfaces[0].name, "net1");
        assert_eq!(network(&links[..1], None, 5), None);
    }

    #[test]
    fn a_writable_layer_names_where_it_is() {
        let usage = layer(&LayerUsage {
            path: "/var/lib/joey/writable/c1/upper".into(),
            used_bytes: 1,
            inodes_used: 2,
            timestamp_ns: 3,
        });
        assert_eq!(usage.timestamp, 3);
        assert_eq!(
            usage.fs_id.unwrap().mountpoint,
            "/var/lib/joey/writable/c1/upper"
        );
        assert_eq!((usage.used_bytes, usage.inodes_used), (value(1), value(2)));
    }
}
