//! What an operator may choose about pod networking.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ipnet::IpNet;

/// Which network pods get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Built-in until a CNI configuration was ever seen, then CNI for good.
    #[default]
    Auto,
    /// Always the built-in network.
    Builtin,
    /// Always CNI; not ready until there is a valid configuration.
    Cni,
}

/// A folder with CNI configurations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniFolder {
    /// Where it is.
    pub conf_dir: PathBuf,
    /// How many of them, in lexical order, a pod is attached to. 0 means all.
    pub max_conf: usize,
}

/// Configuration of [`crate::Network`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkConfig {
    /// Which network pods get.
    pub mode: Mode,
    /// The host's device that carries the gateway addresses of the built-in network.
    pub bridge: String,
    /// Ranges of the built-in network: at most one of IPv4 and one of IPv6. Empty: the first free
    /// one of 10.88.0.0/16 to 10.127.0.0/16.
    pub subnets: Vec<IpNet>,
    /// MTU of pods' interfaces. None: that of the host's default route.
    pub mtu: Option<u32>,
    /// Give packets that leave the node its address.
    pub masquerade: bool,
    /// Destinations that see the pod's own address even with `masquerade`.
    pub masquerade_except: Vec<IpNet>,
    /// Folder with CNI configurations.
    pub cni_conf_dir: PathBuf,
    /// Folders with CNI plugins, searched in order.
    pub cni_bin_dirs: Vec<PathBuf>,
    /// How many CNI configurations, in lexical order, a pod is attached to: `eth0`, `eth1`, ….
    /// 0 means all.
    pub cni_max_conf: usize,
    /// CNI configurations of their own, by runtime handler: their pods are attached by these,
    /// whatever the mode.
    pub handlers: BTreeMap<String, CniFolder>,
    /// How long one CNI plugin may run, in seconds.
    pub cni_timeout_seconds: u64,
    /// What must survive a reboot: address leases, CNI results.
    pub state_dir: PathBuf,
    /// What need not survive a reboot.
    pub run_dir: PathBuf,
    /// Hold a bound socket for each host port, so that no other program takes it.
    pub host_ports_bind: bool,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            bridge: "joey0".to_owned(),
            subnets: Vec::new(),
            mtu: None,
            masquerade: true,
            masquerade_except: Vec::new(),
            cni_conf_dir: PathBuf::from("/etc/cni/net.d"),
            cni_bin_dirs: vec![PathBuf::from("/opt/cni/bin"), PathBuf::from("/usr/lib/cni")],
            cni_max_conf: 1,
            handlers: BTreeMap::new(),
            cni_timeout_seconds: 60,
            state_dir: PathBuf::from("/var/lib/joey/network"),
            run_dir: PathBuf::from("/run/joey/network"),
            host_ports_bind: true,
        }
    }
}
