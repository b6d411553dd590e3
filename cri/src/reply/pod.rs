//! Pods in lists, statuses and stats.

use joey_proto::cri;
use joey_runtime::model::{
    IdMapping, NamespaceMode, PodConfig, PodRecord, PodState, UserNamespace,
};

use super::unsorted;

pub(crate) fn pod_state(state: PodState) -> cri::PodSandboxState {
    match state {
        PodState::Ready => cri::PodSandboxState::SandboxReady,
        PodState::Starting | PodState::NotReady => cri::PodSandboxState::SandboxNotready,
    }
}

/// A pod as lists show it.
pub(crate) fn pod(pod: &PodRecord) -> cri::PodSandbox {
    cri::PodSandbox {
        id: pod.id.clone(),
        metadata: Some(metadata(&pod.config)),
        state: pod_state(pod.state) as i32,
        created_at: pod.created_at,
        labels: unsorted(&pod.config.labels),
        annotations: unsorted(&pod.config.annotations),
        runtime_handler: pod.config.runtime_handler.clone(),
    }
}

/// A pod's status.
pub(crate) fn pod_status(pod: &PodRecord) -> cri::PodSandboxStatus {
    cri::PodSandboxStatus {
        id: pod.id.clone(),
        metadata: Some(metadata(&pod.config)),
        state: pod_state(pod.state) as i32,
        created_at: pod.created_at,
        network: Some(network(pod)),
        linux: Some(cri::LinuxPodSandboxStatus {
            namespaces: Some(cri::Namespace {
                options: Some(namespaces(&pod.config)),
            }),
        }),
        labels: unsorted(&pod.config.labels),
        annotations: unsorted(&pod.config.annotations),
        runtime_handler: pod.config.runtime_handler.clone(),
    }
}

/// A pod as its stats name it.
pub(crate) fn pod_attributes(pod: &PodRecord) -> cri::PodSandboxAttributes {
    cri::PodSandboxAttributes {
        id: pod.id.clone(),
        metadata: Some(metadata(&pod.config)),
        labels: unsorted(&pod.config.labels),
        annotations: unsorted(&pod.config.annotations),
    }
}

fn metadata(config: &PodConfig) -> cri::PodSandboxMetadata {
    cri::PodSandboxMetadata {
        name: config.name.clone(),
        uid: config.uid.clone(),
        namespace: config.namespace.clone(),
        attempt: config.attempt,
    }
}

/// Addresses belong to a pod only while it is ready: afterwards they may be another's.
fn network(pod: &PodRecord) -> cri::PodSandboxNetworkStatus {
    let attachment = pod
        .network
        .as_ref()
        .filter(|_| pod.state == PodState::Ready);
    let mut ips = attachment
        .iter()
        .flat_map(|attachment| &attachment.ips)
        .map(ToString::to_string);
    cri::PodSandboxNetworkStatus {
        ip: ips.next().unwrap_or_default(),
        additional_ips: ips.map(|ip| cri::PodIp { ip }).collect(),
    }
}

fn namespaces(config: &PodConfig) -> cri::NamespaceOption {
    cri::NamespaceOption {
        network: mode(config.network),
        pid: mode(config.pid),
        ipc: mode(config.ipc),
        target_id: String::new(),
        userns_options: Some(userns(config.user_namespace.as_ref())),
    }
}

fn mode(mode: NamespaceMode) -> i32 {
    let mode = match mode {
        NamespaceMode::Pod => cri::NamespaceMode::Pod,
        NamespaceMode::Container => cri::NamespaceMode::Container,
        NamespaceMode::Node => cri::NamespaceMode::Node,
    };
    mode as i32
}

fn userns(namespace: Option<&UserNamespace>) -> cri::UserNamespace {
    match namespace {
        None => cri::UserNamespace {
            mode: cri::NamespaceMode::Node as i32,
            ..cri::UserNamespace::default()
        },
        Some(namespace) => cri::UserNamespace {
            mode: cri::NamespaceMode::Pod as i32,
            uids: id_mappings(&namespace.uids),
            gids: id_mappings(&namespace.gids),
        },
    }
}

pub(super) fn id_mappings(mappings: &[IdMapping]) -> Vec<cri::IdMapping> {
    mappings
        .iter()
        .map(|mapping| cri::IdMapping {
            host_id: mapping.host_id,
            container_id: mapping.container_id,
            length: mapping.size,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod_record as record;

    #[test]
    fn every_field_of_the_status_is_filled() {
        let status = pod_status(&record());
        assert_eq!(status.id, "abc");
        let metadata = status.metadata.unwrap();
        assert_eq!(
            (metadata.name.as_str(), metadata.uid.as_str()),
            ("web", "u-1")
        );
        assert_eq!((metadata.namespace.as_str(), metadata.attempt), ("shop", 3));
        assert_eq!(status.state, cri::PodSandboxState::SandboxReady as i32);
        assert_eq!(status.created_at, 77);
        let network = status.network.unwrap();
        assert_eq!(network.ip, "10.88.0.2");
        assert_eq!(network.additional_ips[0].ip, "fd00::2");
        let options = status.linux.unwrap().namespaces.unwrap().options.unwrap();
        assert_eq!((options.network, options.pid, options.ipc), (0, 1, 2));
        let userns = options.userns_options.unwrap();
        assert_eq!(
            (userns.mode, userns.uids[0].host_id, userns.gids[0].host_id),
            (0, 5, 6)
        );
        assert_eq!(status.labels["app"], "web");
        assert_eq!(status.annotations["note"], " as given\n");
        assert_eq!(status.runtime_handler, "fast");
    }

    #[test]
    fn the_list_shows_the_same() {
        let (item, status) = (pod(&record()), pod_status(&record()));
        assert_eq!(item.id, status.id);
        assert_eq!(item.metadata, status.metadata);
        assert_eq!(item.state, status.state);
        assert_eq!(item.created_at, status.created_at);
        assert_eq!(item.labels, status.labels);
        assert_eq!(item.annotations, status.annotations);
        assert_eq!(item.runtime_handler, status.runtime_handler);
    }

    #[test]
    fn a_stopped_pod_has_no_address() {
        let stopped = PodRecord {
            state: PodState::NotReady,
            ..record()
        };
        let status = pod_status(&stopped);
        assert_eq!(status.state, cri::PodSandboxState::SandboxNotready as i32);
        assert_eq!(
            status.network.unwrap(),
            cri::PodSandboxNetworkStatus::default()
        );
    }

    #[test]
    fn the_hosts_user_namespace_is_said() {
        assert_eq!(userns(None).mode, cri::NamespaceMode::Node as i32);
    }
}
