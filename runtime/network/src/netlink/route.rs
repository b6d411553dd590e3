//! rtnetlink: links, addresses, routes, neighbours.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::message::{ACK, CREATE, DUMP, EXCL, Message, REPLACE, read_u32};
use super::{Attrs, Batch, NetlinkError, Socket};
use crate::ipnet::IpNet;

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const SETLINK: u16 = 19;
const NEWADDR: u16 = 20;
const NEWROUTE: u16 = 24;
const DELROUTE: u16 = 25;
const GETROUTE: u16 = 26;
const NEWNEIGH: u16 = 28;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET_CONF: u16 = 1;
const EXT_MASK_SKIP_STATS: u32 = 8;
const IFF_UP: u32 = 1;

/// Index of the loopback interface in every namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// Numbers of `IPV4_DEVCONF_*`.
pub(crate) const DEVCONF_FORWARDING: u16 = 1;
pub(crate) const DEVCONF_RP_FILTER: u16 = 8;
pub(crate) const DEVCONF_ROUTE_LOCALNET: u16 = 26;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 2;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTNH_F_ONLINK: u32 = 4;
const TABLE_MAIN: u8 = 254;
const TYPE_UNICAST: u8 = 1;
const TYPE_UNREACHABLE: u8 = 7;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
/// Who put a route there, as `ip route` shows it ("proto 106").
const PROTOCOL_JOEY: u8 = 106;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// The two ends of a new veth pair.
#[derive(Debug)]
pub(crate) struct VethPair<'a> {
    pub(crate) host_name: &'a str,
    pub(crate) host_mac: Mac,
    pub(crate) pod_name: &'a str,
    pub(crate) pod_mac: Mac,
    pub(crate) pod_netns: BorrowedFd<'a>,
    pub(crate) mtu: u32,
}

fn family(address: IpAddr) -> u8 {
    let number = if address.is_ipv6() {
        libc::AF_INET6
    } else {
        libc::AF_INET
    };
    u8::try_from(number).unwrap_or_default()
}

pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn full_prefix(address: IpAddr) -> u8 {
    if address.is_ipv6() { 128 } else { 32 }
}

fn link_header(m: &mut Message<'_>, index: u32, flags: u32) {
    let mut header = [0_u8; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    m.raw(&header);
}

/// The new end on the host is up at once; its peer can be set up only inside. One queue each: the
/// default is one per CPU, which costs memory and time on large machines.
pub(crate) fn add_veth(batch: &mut Batch, pair: &VethPair<'_>) {
    let ends = |m: &mut Message<'_>, name: &str, mac: Mac| {
        m.text(IFLA_IFNAME, name);
        m.attr(IFLA_ADDRESS, &mac);
        m.u32(IFLA_MTU, pair.mtu);
        m.u32(IFLA_NUM_TX_QUEUES, 1);
        m.u32(IFLA_NUM_RX_QUEUES, 1);
    };
    batch.add(NEWLINK, ACK | CREATE | EXCL, |m| {
        link_header(m, 0, IFF_UP);
        ends(m, pair.host_name, pair.host_mac);
        m.nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth");
            info.nested(IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |peer| {
                    link_header(peer, 0, 0);
                    ends(peer, pair.pod_name, pair.pod_mac);
                    peer.u32(IFLA_NET_NS_FD, pair.pod_netns.as_raw_fd().cast_unsigned());
                });
            });
        });
    });
}

/// A device without parameters (`dummy`, `bridge`), up.
pub(crate) fn add_plain_link(batch: &mut Batch, name: &str, kind: &str) {
    batch.add(NEWLINK, ACK | CREATE | EXCL, |m| {
        link_header(m, 0, IFF_UP);
        m.text(IFLA_IFNAME, name);
        m.nested(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, kind));
    });
}

pub(crate) fn get_link(batch: &mut Batch, name: &str) {
    batch.add(GETLINK, ACK, |m| {
        link_header(m, 0, 0);
        m.text(IFLA_IFNAME, name);
        m.u32(IFLA_EXT_MASK, EXT_MASK_SKIP_STATS);
    });
}

/// Index of the link in an answer to [`get_link`].
pub(crate) fn link_index(reply: &[u8]) -> Option<u32> {
    read_u32(reply, 4)
}

pub(crate) fn set_up(batch: &mut Batch, index: u32) {
    batch.add(SETLINK, ACK, |m| link_header(m, index, IFF_UP));
}

/// Sets per-device IPv4 settings (`/proc/sys/net/ipv4/conf/<device>/…`).
pub(crate) fn set_inet_conf(batch: &mut Batch, index: u32, settings: &[(u16, u32)]) {
    batch.add(SETLINK, ACK, |m| {
        link_header(m, index, 0);
        m.nested(IFLA_AF_SPEC, |spec| {
            spec.nested(u16::try_from(libc::AF_INET).unwrap_or_default(), |inet| {
                inet.nested(IFLA_INET_CONF, |conf| {
                    for (setting, value) in settings {
                        conf.u32(*setting, *value);
                    }
                });
            });
        });
    });
}

pub(crate) fn delete_link(batch: &mut Batch, name: &str) {
    batch.add(DELLINK, ACK, |m| {
        link_header(m, 0, 0);
        m.text(IFLA_IFNAME, name);
    });
}

pub(crate) fn delete_link_by_index(batch: &mut Batch, index: u32) {
    batch.add(DELLINK, ACK, |m| link_header(m, index, 0));
}

/// Gives the link one address with a full prefix, without duplicate detection.
pub(crate) fn add_address(batch: &mut Batch, index: u32, address: IpAddr) {
    batch.add(NEWADDR, ACK | CREATE | REPLACE, |m| {
        let flags = if address.is_ipv6() { IFA_F_NODAD } else { 0 };
        let mut header = [
            family(address),
            full_prefix(address),
            flags,
            SCOPE_UNIVERSE,
            0,
            0,
            0,
            0,
        ];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        m.raw(&header);
        let bytes = octets(address);
        m.attr(IFA_LOCAL, &bytes);
        m.attr(IFA_ADDRESS, &bytes);
    });
}

fn route_header(m: &mut Message<'_>, family: u8, prefix: u8, scope: u8, kind: u8, flags: u32) {
    let mut header = [
        family,
        prefix,
        0,
        0,
        TABLE_MAIN,
        PROTOCOL_JOEY,
        scope,
        kind,
        0,
        0,
        0,
        0,
    ];
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    m.raw(&header);
}

/// Default route through `gateway`, which need not lie in any range of the link.
pub(crate) fn add_default_route(batch: &mut Batch, index: u32, gateway: IpAddr) {
    batch.add(NEWROUTE, ACK | CREATE | REPLACE, |m| {
        route_header(
            m,
            family(gateway),
            0,
            SCOPE_UNIVERSE,
            TYPE_UNICAST,
            RTNH_F_ONLINK,
        );
        m.attr(RTA_GATEWAY, &octets(gateway));
        m.u32(RTA_OIF, index);
    });
}

/// Route to one address behind a link; `source` is what the host itself calls from.
pub(crate) fn add_host_route(batch: &mut Batch, index: u32, to: IpAddr, source: Option<IpAddr>) {
    batch.add(NEWROUTE, ACK | CREATE | REPLACE, |m| {
        let scope = if to.is_ipv6() {
            SCOPE_UNIVERSE
        } else {
            SCOPE_LINK
        };
        route_header(m, family(to), full_prefix(to), scope, TYPE_UNICAST, 0);
        m.attr(RTA_DST, &octets(to));
        m.u32(RTA_OIF, index);
        if let Some(source) = source {
            m.attr(RTA_PREFSRC, &octets(source));
        }
    });
}

/// Removes what [`add_host_route`] added.
pub(crate) fn delete_host_route(batch: &mut Batch, index: u32, to: IpAddr) {
    batch.add(DELROUTE, ACK, |m| {
        let scope = if to.is_ipv6() {
            SCOPE_UNIVERSE
        } else {
            SCOPE_LINK
        };
        route_header(m, family(to), full_prefix(to), scope, TYPE_UNICAST, 0);
        m.attr(RTA_DST, &octets(to));
        m.u32(RTA_OIF, index);
    });
}

/// Addresses of the range that no pod has are refused at once, not sent to the default gateway.
pub(crate) fn add_unreachable(batch: &mut Batch, range: IpNet) {
    batch.add(NEWROUTE, ACK | CREATE | REPLACE, |m| {
        let family = family(range.network());
        route_header(
            m,
            family,
            range.prefix(),
            SCOPE_UNIVERSE,
            TYPE_UNREACHABLE,
            0,
        );
        m.attr(RTA_DST, &octets(range.network()));
        m.u32(RTA_PRIORITY, 1024);
    });
}

/// A neighbour that is never asked for and never forgotten, and not counted by the table's limit.
pub(crate) fn add_neighbour(batch: &mut Batch, index: u32, address: IpAddr, mac: Mac) {
    batch.add(NEWNEIGH, ACK | CREATE | REPLACE, |m| {
        let mut header = [0_u8; 12];
        header[0] = family(address);
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        header[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
        m.raw(&header);
        m.attr(NDA_DST, &octets(address));
        m.attr(NDA_LLADDR, &mac);
    });
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) to: IpNet,
    pub(crate) link: Option<u32>,
    pub(crate) own: bool,
}

/// All routes of the main table, both families.
pub(crate) fn routes(socket: &mut Socket) -> Result<Vec<Route>, NetlinkError> {
    let mut batch = Batch::new();
    batch.add(GETROUTE, DUMP, |m| m.raw(&[0; 12]));
    let mut found = Vec::new();
    socket.dump(batch, |kind, data| {
        if kind == NEWROUTE && data.get(4) == Some(&TABLE_MAIN) {
            found.extend(parse_route(data));
        }
    })?;
    Ok(found)
}

fn parse_route(data: &[u8]) -> Option<Route> {
    let (family, prefix, protocol) = (i32::from(*data.first()?), *data.get(1)?, *data.get(5)?);
    let attrs = Attrs::new(data.get(12..)?);
    let address = match (attrs.get(RTA_DST), family) {
        (Some(bytes), libc::AF_INET) => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        (Some(bytes), libc::AF_INET6) => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        (None, libc::AF_INET) => IpAddr::from([0_u8; 4]),
        (None, libc::AF_INET6) => IpAddr::from([0_u8; 16]),
        _ => return None,
    };
    let to = IpNet::new(address, prefix)?;
    Some(Route {
        to,
        link: attrs.u32(RTA_OIF),
        own: protocol == PROTOCOL_JOEY,
    })
}

/// A link as a dump shows it.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mtu: u32,
}

/// All links of the namespace.
pub(crate) fn links(socket: &mut Socket) -> Result<Vec<Link>, NetlinkError> {
    let mut batch = Batch::new();
    batch.add(GETLINK, DUMP, |m| {
        link_header(m, 0, 0);
        m.u32(IFLA_EXT_MASK, EXT_MASK_SKIP_STATS);
    });
    let mut found = Vec::new();
    socket.dump(batch, |kind, data| {
        if kind == NEWLINK {
            found.extend(parse_link(data));
        }
    })?;
    Ok(found)
}

fn parse_link(data: &[u8]) -> Option<Link> {
    let index = read_u32(data, 4)?;
    let attrs = Attrs::new(data.get(16..)?);
    Some(Link {
        index,
        name: attrs.text(IFLA_IFNAME)?.to_owned(),
        mtu: attrs.u32(IFLA_MTU).unwrap_or_default(),
    })
}
