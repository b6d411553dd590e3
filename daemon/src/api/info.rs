//! `Version` and `Info`.

use joey_proto::api::{Entry, InfoResponse, VersionResponse};
use joey_runtime::model::{ContainerState, Owner};

use super::State;
use crate::socket::path_of;

const API_VERSION: &str = "v1";

/// The daemon's version and the node's system.
pub fn version(state: &State) -> VersionResponse {
    VersionResponse {
        version: env!("CARGO_PKG_VERSION").into(),
        api_version: API_VERSION.into(),
        os: std::env::consts::OS.into(),
        arch: std::env::consts::ARCH.into(),
        kernel: state.runtime.info().kernel,
    }
}

/// What there is and what this node can do.
pub fn info(state: &State) -> InfoResponse {
    let mut entries = Vec::new();
    let mut add = |key: &str, value: String| {
        entries.push(Entry {
            key: key.into(),
            value,
        });
    };
    let runtime = state.runtime.info();
    let joeys = state.containers();
    let running = joeys
        .iter()
        .filter(|container| container.state() == ContainerState::Running);
    add("Version", env!("CARGO_PKG_VERSION").into());
    add("Containers", joeys.len().to_string());
    add("Running", running.count().to_string());
    add(
        "Kubernetes pods",
        state.runtime.pods(Owner::Cri).len().to_string(),
    );
    add(
        "Kubernetes containers",
        state.runtime.containers(Owner::Cri).len().to_string(),
    );
    let usage = state.images.fs_info();
    add("Images", state.images.list().len().to_string());
    add("Image bytes", usage.used_bytes.to_string());
    add("Root", runtime.root.display().to_string());
    add("State", runtime.state.display().to_string());
    let sockets = state
        .config
        .listen
        .iter()
        .filter_map(|address| path_of(address).ok());
    add(
        "Sockets",
        sockets
            .map(|path| path.display().to_string())
            .collect::<Vec<_>>()
            .join(" "),
    );
    add("Kernel", runtime.kernel);
    add(
        "Cgroup version",
        format!("{:?}", runtime.cgroup_version).to_lowercase(),
    );
    add(
        "Cgroup driver",
        format!("{:?}", runtime.cgroup_driver).to_lowercase(),
    );
    let network = state.runtime.network_status();
    add("Network", network_text(&network));
    let names = runtime
        .handlers
        .iter()
        .map(|handler| match handler.name.as_str() {
            "" => "joey (default)",
            name => name,
        });
    add("Runtime handlers", names.collect::<Vec<_>>().join(", "));
    let features = runtime.features;
    for (name, present) in [
        ("User namespaces", features.user_namespaces),
        ("Recursive read-only mounts", features.recursive_readonly),
        ("Idmapped mounts", features.idmapped_mounts),
        ("Seccomp", features.seccomp),
        ("AppArmor", features.apparmor),
        ("SELinux", features.selinux),
        ("Pressure stall information", features.psi),
        ("Swap accounting", features.swap),
    ] {
        add(name, if present { "yes" } else { "no" }.into());
    }
    InfoResponse { entries }
}

fn network_text(status: &joey_network::Status) -> String {
    let mode = format!("{:?}", status.mode).to_lowercase();
    match status.ready {
        true => format!("{mode}, ready"),
        false => format!("{mode}, not ready: {} ({})", status.message, status.reason),
    }
}
