//! Pods' networks: a built-in one, in process by netlink and nftables, and CNI plugins.
//!
//! [`Network`] is the entry: it attaches a pod's network namespace, tells the state of the
//! network, and takes a pod down again by what made it.

mod builtin;
mod cni;
mod config;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod held;
mod ipnet;
mod netlink;
pub mod netns;
mod network;
mod types;
mod worker;

pub use builtin::RestoreError;
pub use builtin::ipam::AddressError;
pub use builtin::ports::PortError;
pub use config::{CniFolder, Mode, NetworkConfig};
pub use error::{AttachError, DetachError, GcError, LoopbackError, OpenError, SetPodCidrError};
pub use held::HoldError;
pub use ipnet::{IpNet, ParseIpNetError};
pub use network::Network;
pub use types::{
    AttachRequest, Attachment, CniAttachment, DetachRequest, DnsConfig, PortMapping, Protocol,
    Provider, Status,
};
