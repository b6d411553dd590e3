//! What the built-in network needs of the node once: forwarding, the gateways' device, the rules.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::rules;
use crate::ipnet::IpNet;
use crate::netlink::{Batch, NetlinkError, Socket, route};

/// Why the node could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A kernel setting can't be changed.
    #[error("set {path} to {value}")]
    Sysctl {
        /// Under `/proc/sys`.
        path: String,
        /// The value wanted.
        value: &'static str,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// The routes can't be read.
    #[error("read the node's routes")]
    Routes(#[source] NetlinkError),
    /// The device with the gateways' addresses can't be made.
    #[error("make device {device}")]
    Device {
        /// Its name.
        device: String,
        /// The reason.
        #[source]
        source: NetlinkError,
    },
    /// A range can't be set up on the device.
    #[error("set up device {device} with the gateways of the pods")]
    Addresses {
        /// Its name.
        device: String,
        /// The reason.
        #[source]
        source: NetlinkError,
    },
    /// The packet filter's table can't be made.
    #[error("make nftables table inet {}", rules::TABLE)]
    Rules(#[source] NetlinkError),
    /// The chosen range can't be written down.
    #[error("write the chosen address range to {path}")]
    KeepRange {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// Every range that could be used by default is in use.
    #[error(
        "no free address range for pods is left between 10.88.0.0/16 and 10.127.0.0/16; set network.subnets"
    )]
    NoFreeRange,
}

const SYSCTLS: &str = "/proc/sys/net";

/// Lets the node pass packets on.
pub(super) fn enable_forwarding(ipv6: bool) -> Result<(), HostError> {
    set("ipv4/ip_forward", "1")?;
    if ipv6 {
        keep_router_advertisements();
        set("ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

/// A forwarding node ignores router advertisements, and would lose the addresses and routes it
/// got by them, unless told to accept them all the same.
fn keep_router_advertisements() {
    let Ok(devices) = fs::read_dir(format!("{SYSCTLS}/ipv6/conf")) else {
        return;
    };
    for device in devices.flatten() {
        let Ok(name) = device.file_name().into_string() else {
            continue;
        };
        let setting = format!("ipv6/conf/{name}/accept_ra");
        let accepted = fs::read_to_string(format!("{SYSCTLS}/{setting}"));
        if accepted.is_ok_and(|value| value.trim() == "1")
            && let Err(error) = set(&setting, "2")
        {
            tracing::warn!(%error, name, "the device may lose its advertised addresses");
        }
    }
}

fn set(setting: &str, value: &'static str) -> Result<(), HostError> {
    let path = format!("{SYSCTLS}/{setting}");
    if fs::read_to_string(&path).is_ok_and(|old| old.trim() == value) {
        return Ok(());
    }
    joey_failpoint::hit("sysctl.write")
        .and_then(|()| fs::write(&path, value))
        .map_err(|source| HostError::Sysctl {
            path,
            value,
            source,
        })
}

/// True if the kernel has IPv6.
pub(super) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6/conf/all/forwarding").exists()
}

/// The MTU of the device with the default route.
pub(super) fn default_mtu(socket: &mut Socket) -> Option<u32> {
    let routes = route::routes(socket).ok()?;
    let links = route::links(socket).ok()?;
    let default = routes.iter().find(|route| route.to.prefix() == 0)?;
    let link = links.iter().find(|link| Some(link.index) == default.link)?;
    Some(link.mtu)
}

/// The range chosen before, kept in the file `chosen`, or else the first that the node has no
/// route into. One that pods have addresses of (`in_use`) stays.
pub(super) fn free_range(
    socket: &mut Socket,
    chosen: &Path,
    in_use: bool,
) -> Result<IpNet, HostError> {
    let before: Option<IpNet> = fs::read_to_string(chosen)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let routes = route::routes(socket).map_err(HostError::Routes)?;
    let free = |range: &IpNet| {
        let mut others = routes
            .iter()
            .filter(|route| route.to.prefix() > 0 && !route.own);
        !others.any(|route| route.to.overlaps(range))
    };
    if let Some(range) = before.filter(|range| in_use || free(range)) {
        return Ok(range);
    }
    let mut candidates = (88..=127).filter_map(|second| IpNet::new([10, second, 0, 0].into(), 16));
    let range = candidates.find(free).ok_or(HostError::NoFreeRange)?;
    joey_failpoint::hit("network.range.write")
        .and_then(|()| fs::write(chosen, format!("{range}\n")))
        .map_err(|source| HostError::KeepRange {
            path: chosen.to_owned(),
            source,
        })?;
    Ok(range)
}

/// Makes the device that has the gateways' addresses, and refuses addresses no pod has.
pub(super) fn set_up_device(
    socket: &mut Socket,
    device: &str,
    ranges: &[IpNet],
) -> Result<(), HostError> {
    let index = device_index(socket, device).map_err(|source| HostError::Device {
        device: device.to_owned(),
        source,
    })?;
    let mut batch = Batch::new();
    route::set_up(&mut batch, index);
    for range in ranges {
        if let Some(gateway) = super::ipam::gateway(*range) {
            route::add_address(&mut batch, index, gateway);
        }
        route::add_unreachable(&mut batch, *range);
    }
    socket
        .transact(batch)
        .and_then(|answers| answers.check(|_, _| false))
        .map(drop)
        .map_err(|source| HostError::Addresses {
            device: device.to_owned(),
            source,
        })
}

/// A dummy device where the kernel has them, a bridge without ports otherwise.
fn device_index(socket: &mut Socket, device: &str) -> Result<u32, NetlinkError> {
    let mut refusal = None;
    for kind in ["dummy", "bridge"] {
        let mut batch = Batch::new();
        route::add_plain_link(&mut batch, device, kind);
        route::get_link(&mut batch, device);
        let answers = socket.transact(batch)?;
        if let Some(index) = answers.reply(1).and_then(route::link_index) {
            return Ok(index);
        }
        refusal = answers.check(|_, _| false).err();
        let unknown = refusal.as_ref().and_then(NetlinkError::errno);
        if unknown != Some(Errno::OPNOTSUPP) {
            break;
        }
    }
    Err(refusal.unwrap_or(NetlinkError::Incomplete { got: 0, want: 1 }))
}
