//! `ListContainers`.

use joey_proto::api::{self, ListContainersResponse, PortMapping};
use joey_runtime::Container;
use joey_runtime::model::{
    ContainerRecord, ContainerState, Exit, NamespaceMode, PodRecord, Protocol,
};

use super::State;

/// The running containers, or all, the newest first.
pub fn list(state: &State, all: bool) -> ListContainersResponse {
    let containers = state.containers();
    let shown = containers
        .iter()
        .filter(|container| all || container.state() == ContainerState::Running);
    ListContainersResponse {
        containers: shown.map(|container| describe(state, container)).collect(),
    }
}

fn describe(state: &State, container: &Container) -> api::Container {
    let record = container.record();
    // A container that is being removed may have lost its pod already.
    let pod = state
        .runtime
        .pod(&record.pod_id)
        .ok()
        .map(|pod| pod.record());
    let started = record.started.as_ref();
    let exit = record.exit.as_ref();
    api::Container {
        id: record.id.clone(),
        name: record.config.name.clone(),
        image: record.config.image.user_specified.clone(),
        image_id: record.config.image.id.clone(),
        command: record.launch.args.join(" "),
        state: state_name(&record).to_owned(),
        created_at: record.created_at,
        started_at: started.map_or(0, |started| started.at),
        finished_at: exit.map_or(0, |exit| exit.at),
        exit_code: exit.map_or(0, |exit| exit.code),
        reason: exit.map(Exit::reason).unwrap_or_default(),
        ip: pod.as_deref().map(address).unwrap_or_default(),
        ports: pod.as_deref().map(ports).unwrap_or_default(),
        labels: record.config.labels.clone().into_iter().collect(),
        runtime: pod
            .map(|pod| pod.config.runtime_handler.clone())
            .unwrap_or_default(),
        tty: record.config.tty,
        pid: match (started, exit) {
            (Some(started), None) => started.pid,
            _ => 0,
        },
    }
}

/// What a pod's network is asked for by.
pub fn network_name(pod: &PodRecord) -> &'static str {
    match pod.config.network {
        NamespaceMode::Node => "host",
        _ if pod.config.isolated => "none",
        _ => "bridge",
    }
}

/// As `ps` and `inspect` have it.
pub fn state_name(record: &ContainerRecord) -> &'static str {
    match record.state() {
        ContainerState::Created => "created",
        ContainerState::Running => "running",
        ContainerState::Exited => "exited",
        ContainerState::Unknown => "unknown",
    }
}

fn address(pod: &PodRecord) -> String {
    let network = pod.network.as_ref();
    network
        .and_then(|network| network.ips.first())
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn ports(pod: &PodRecord) -> Vec<PortMapping> {
    let mappings = pod.config.port_mappings.iter();
    mappings
        .map(|mapping| PortMapping {
            host_ip: mapping.host_ip.clone(),
            host_port: mapping.host_port.into(),
            container_port: mapping.container_port.into(),
            protocol: match mapping.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
                Protocol::Sctp => "sctp",
            }
            .to_owned(),
        })
        .collect()
}
