//! Pod sandboxes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use joey_cgroup::Resources;
use joey_network::Attachment;
use serde::{Deserialize, Serialize};

use crate::resources::Overlay;

/// Who asked for a pod, and so whose lists show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum Owner {
    /// A CRI client; the kubelet kills pods in CRI's lists that it does not know.
    #[default]
    Cri,
    /// The `joey` command line; invisible to CRI.
    Joey,
}

/// Where a namespace of a pod comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum NamespaceMode {
    /// The pod's own.
    #[default]
    Pod,
    /// One for each container (PID only).
    Container,
    /// The host's.
    Node,
}

/// A range of user or group ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id on the host.
    pub host_id: u32,
    /// First id inside.
    pub container_id: u32,
    /// How many ids.
    pub size: u32,
}

/// The pod's own user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNamespace {
    /// User ids.
    pub uids: Vec<IdMapping>,
    /// Group ids.
    pub gids: Vec<IdMapping>,
}

impl UserNamespace {
    /// The host's user and group id of the pod's root; None where it is not mapped.
    #[must_use]
    pub fn root(&self) -> Option<(u32, u32)> {
        let host_id = |mappings: &[IdMapping]| {
            let of_root = mappings.iter().find(|mapping| mapping.container_id == 0);
            of_root.map(|mapping| mapping.host_id)
        };
        Some((host_id(&self.uids)?, host_id(&self.gids)?))
    }
}

/// Transport of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A port of the pod offered on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// Transport.
    pub protocol: Protocol,
    /// In the pod.
    pub container_port: u16,
    /// On the host; 0 is none.
    pub host_port: u16,
    /// The host's address; empty is every one.
    pub host_ip: String,
}

/// What resolv.conf holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct DnsConfig {
    /// Name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
}

/// A seccomp or AppArmor profile as asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum SecurityProfile {
    /// None.
    #[default]
    Unconfined,
    /// The runtime's own.
    RuntimeDefault,
    /// A file (seccomp) or a loaded profile's name (AppArmor).
    Localhost(String),
}

/// SELinux label parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[allow(missing_docs)]
pub struct SelinuxOptions {
    pub user: String,
    pub role: String,
    pub kind: String,
    pub level: String,
}

/// The pod's security context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct PodSecurity {
    /// Containers may be privileged only in a privileged pod.
    pub privileged: bool,
    /// Applies to the pod's own processes.
    pub readonly_rootfs: bool,
    /// As CRI gives it; containers bring their own.
    pub selinux: Option<SelinuxOptions>,
    /// Seccomp of the pod's own init.
    pub seccomp: SecurityProfile,
    /// AppArmor of the pod's own init.
    pub apparmor: SecurityProfile,
    /// Group ids for containers that name none.
    pub supplemental_groups: Vec<i64>,
}

/// A pod as asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct PodConfig {
    /// Who asked for it.
    pub owner: Owner,
    /// Name within the namespace.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes UID.
    pub uid: String,
    /// Counts sandboxes of one pod.
    pub attempt: u32,
    /// Host name inside; empty with the host's network.
    pub hostname: String,
    /// Folder of the containers' logs.
    pub log_directory: PathBuf,
    /// None: the host's resolv.conf is copied.
    pub dns: Option<DnsConfig>,
    /// Ports offered on the host.
    pub port_mappings: Vec<PortMapping>,
    /// Returned unchanged.
    pub labels: BTreeMap<String, String>,
    /// Returned unchanged.
    pub annotations: BTreeMap<String, String>,
    /// The runtime handler's name; empty is the default one.
    pub runtime_handler: String,
    /// Pod or Node.
    pub network: NamespaceMode,
    /// The pod's own network has nothing but a loopback interface.
    pub isolated: bool,
    /// Pod, Container or Node.
    pub pid: NamespaceMode,
    /// Pod or Node.
    pub ipc: NamespaceMode,
    /// None: the host's user namespace.
    pub user_namespace: Option<UserNamespace>,
    /// As the kubelet sends it, in the driver's syntax; empty is Joey's own.
    pub cgroup_parent: String,
    /// Namespaced kernel settings.
    pub sysctls: BTreeMap<String, String>,
    /// Security context.
    pub security: PodSecurity,
    /// Pod overhead.
    pub overhead: Option<Resources>,
    /// The sum of the containers' resources.
    pub resources: Option<Resources>,
}

/// A process: its pid, and when it started in clock ticks (field 22 of `/proc/PID/stat`).
pub type Process = (i32, u64);

/// Whether a pod can take containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodState {
    /// Being made; not listed yet.
    Starting,
    /// Can take containers.
    Ready,
    /// Stopped, or ended by a cause.
    NotReady,
}

/// A pod's record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PodRecord {
    /// [`super::RECORD_VERSION`].
    pub version: u32,
    /// 64 hexadecimal digits.
    pub id: String,
    /// As asked for.
    pub config: PodConfig,
    /// Limits of its own group, changed since it was asked for; the topmost last.
    #[serde(default)]
    pub overlays: Vec<Overlay>,
    /// Life-cycle state.
    pub state: PodState,
    /// ns since the epoch.
    pub created_at: i64,
    /// Addresses and what gave them; None with the host's network.
    #[serde(default)]
    pub network: Option<Attachment>,
    /// The shim's.
    #[serde(default)]
    pub shim: Option<Process>,
    /// PID 1 of a shared PID namespace, on the host.
    #[serde(default)]
    pub init_pid: i32,
    /// The boot this state belongs to.
    pub boot_id: String,
    /// Why a pod that nobody stopped is not ready.
    #[serde(default)]
    pub cause: Option<String>,
}
