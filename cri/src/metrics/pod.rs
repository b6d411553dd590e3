//! The samples of a pod as a whole.

use joey_network::netns::InterfaceStats;
use joey_proto::cri::Metric;
use joey_runtime::PodStats;
use joey_runtime::model::PodRecord;

use super::descriptors as metric;
use super::samples::{Labels, Samples};

/// The samples of a ready pod: its network, and the sums of its containers.
pub(crate) fn pod_metrics(record: &PodRecord, stats: &PodStats) -> Vec<Metric> {
    let path = stats.group.path();
    let path = path.to_string_lossy();
    let mut samples = Samples::new(&Labels {
        id: &path,
        namespace: &record.config.namespace,
        pod: &record.config.name,
        ..Labels::default()
    });
    for link in stats.interfaces.iter().filter(|link| link.name != "lo") {
        samples.network(link);
    }
    if let Some(cpu) = &stats.cgroup.cpu {
        samples.cpu(cpu);
    }
    if let Some(memory) = &stats.cgroup.memory {
        samples.memory(memory);
    }
    if let Some(psi) = stats.group.psi() {
        samples.pressure(&psi);
    }
    samples.add(&metric::PROCESSES, &[], stats.group.process_count());
    samples.into_metrics()
}

impl Samples<'_> {
    fn network(&mut self, link: &InterfaceStats) {
        for (metric, value) in [
            (&metric::NETWORK_RX_BYTES, link.rx_bytes),
            (&metric::NETWORK_RX_PACKETS, link.rx_packets),
            (&metric::NETWORK_RX_DROPPED, link.rx_dropped),
            (&metric::NETWORK_RX_ERRORS, link.rx_errors),
            (&metric::NETWORK_TX_BYTES, link.tx_bytes),
            (&metric::NETWORK_TX_PACKETS, link.tx_packets),
            (&metric::NETWORK_TX_DROPPED, link.tx_dropped),
            (&metric::NETWORK_TX_ERRORS, link.tx_errors),
        ] {
            self.add(metric, &[&link.name], value);
        }
    }
}
