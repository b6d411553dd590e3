//! Requests and results of [`crate::Network`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Transport of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Lower-case name, as CNI wants it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A port of the pod offered on the host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortMapping {
    /// Transport.
    pub protocol: Protocol,
    /// In the pod.
    pub container_port: u16,
    /// On the host; 0 is none, such a mapping is left out.
    pub host_port: u16,
    /// The one address of the host it is offered on; None is every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

/// Resolver settings handed to CNI plugins with the `dns` capability.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DnsConfig {
    /// Name servers.
    #[serde(default)]
    pub servers: Vec<String>,
    /// Search domains.
    #[serde(default)]
    pub searches: Vec<String>,
    /// Resolver options.
    #[serde(default)]
    pub options: Vec<String>,
}

/// What [`crate::Network::attach`] needs to know of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AttachRequest {
    /// Id of the sandbox; the key of the lease. Letters, digits, `.`, `_` and `-`.
    pub pod_id: String,
    /// Kubernetes name of the pod.
    pub pod_name: String,
    /// Kubernetes namespace of the pod.
    pub pod_namespace: String,
    /// Kubernetes UID of the pod.
    pub pod_uid: String,
    /// Runtime handler of the pod; empty is the default one.
    pub handler: String,
    /// Where the pod's network namespace is pinned.
    pub netns: PathBuf,
    /// Ports offered on the host.
    pub port_mappings: Vec<PortMapping>,
    /// Labels of the pod.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pod; the bandwidth ones are read.
    pub annotations: BTreeMap<String, String>,
    /// Resolver settings.
    pub dns: Option<DnsConfig>,
    /// cgroup parent of the pod; empty is none.
    pub cgroup_parent: String,
    /// Fixed addresses asked for; empty is any.
    pub ips: Vec<IpAddr>,
    /// Fixed hardware address asked for, `aa:bb:cc:dd:ee:ff`.
    pub mac: Option<String>,
}

/// What made an attachment; the same takes it down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// The built-in network.
    Builtin,
    /// CNI plugins.
    Cni,
}

/// A pod's place in the network. Belongs into the pod's record: [`crate::Network::detach`] wants it
/// back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// What made it.
    pub provider: Provider,
    /// Name of the pod's main interface, inside.
    pub interface: String,
    /// Name of its other end on the host, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_interface: Option<String>,
    /// Addresses of the pod; the first is the main one.
    pub ips: Vec<IpAddr>,
    /// Hardware address of the main interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Next hops of the pod's default routes.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    /// Ports offered on the host.
    #[serde(default)]
    pub port_mappings: Vec<PortMapping>,
    /// What CNI plugins were given and answered, one per network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cni: Vec<CniAttachment>,
}

/// One CNI network of a pod: what ADD was given and answered, so that CHECK and DEL get the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniAttachment {
    /// The configuration list as it was when ADD ran.
    pub conf: serde_json::Value,
    /// Interface name inside (`CNI_IFNAME`).
    pub interface: String,
    /// `CNI_ARGS`.
    pub args: String,
    /// Values for the plugins' declared capabilities.
    pub capabilities: BTreeMap<String, serde_json::Value>,
    /// Result of the last plugin; None while ADD has not ended well.
    #[serde(default)]
    pub result: Option<serde_json::Value>,
}

/// What [`crate::Network::detach`] needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DetachRequest {
    /// Id of the sandbox.
    pub pod_id: String,
    /// The pod's network namespace; None when it is gone (after a reboot).
    pub netns: Option<PathBuf>,
    /// What attach returned; None if that was never learned (a crash in between).
    pub attachment: Option<Attachment>,
}

/// State of the network, as CRI's `NetworkReady` condition wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// True if pods can be attached.
    pub ready: bool,
    /// A CamelCase word; empty if ready.
    pub reason: String,
    /// For people; empty if ready.
    pub message: String,
    /// What new pods are attached by.
    pub mode: Provider,
}
