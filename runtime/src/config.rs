//! What the runtime is told at start, and where its files are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use joey_cgroup::DriverChoice;
use joey_network::NetworkConfig;

/// Settings of the runtime.
#[derive(Debug, Clone)]
pub struct Config {
    /// What survives a reboot: `/var/lib/joey`.
    pub root: PathBuf,
    /// What does not: `/run/joey`.
    pub state: PathBuf,
    /// The shim's binary.
    pub shim: PathBuf,
    /// Who manages cgroups.
    pub cgroup_driver: DriverChoice,
    /// The pod network.
    pub network: NetworkConfig,
    /// Runtime handlers besides the default one, by name.
    pub handlers: BTreeMap<String, HandlerConfig>,
    /// Where pods without a cgroup parent go, in the driver's syntax; empty is Joey's own.
    pub default_cgroup_parent: String,
}

/// What the pods of a runtime handler have other than those of the default one. Its CNI
/// configurations are in [`NetworkConfig::handlers`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HandlerConfig {
    /// Privileged containers do not get the host's devices, only those they ask for.
    pub privileged_without_host_devices: bool,
}

impl Config {
    /// The run folder of a pod: its shim's socket, exit records, generated files.
    pub(crate) fn pod_folder(&self, pod_id: &str) -> PathBuf {
        self.state.join("pods").join(pod_id)
    }

    /// The run folder of a container: its OCI bundle.
    pub(crate) fn bundle(&self, pod_id: &str, container_id: &str) -> PathBuf {
        self.pod_folder(pod_id).join("bundles").join(container_id)
    }

    /// A container's copy of its Localhost seccomp profile.
    pub(crate) fn seccomp_profile(&self, container_id: &str) -> PathBuf {
        self.writable(container_id).join("seccomp.json")
    }

    /// The writable layer of a container.
    pub(crate) fn writable(&self, container_id: &str) -> PathBuf {
        self.root.join("writable").join(container_id)
    }
}

/// The pinned network namespace of a pod.
pub(crate) fn netns_path(pod_id: &str) -> PathBuf {
    Path::new("/run/netns").join(format!("joey-{}", &pod_id[..pod_id.len().min(16)]))
}
