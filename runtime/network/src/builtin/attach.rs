//! One pod: in, out, and looked at.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use rustix::io::Errno;

use super::detach::{Removal, forget_flows};
use super::ipam::{AddressError, gateway};
use super::lease::{Lease, LeaseError};
use super::names::{format_mac, link_name, mac_of, parse_mac};
use super::ports::PortError;
use super::{Builtin, Inner, rules};
use crate::ipnet::IpNet;
use crate::netlink::route::{self, Mac, VethPair};
use crate::netlink::{Batch, NetlinkError};
use crate::types::{AttachRequest, Attachment, Provider};
use crate::worker::{Home, VisitError, WorkerError};

/// Name of the pod's interface, inside.
const POD_LINK: &str = "eth0";
/// Hardware address of every pod's gateway.
const GATEWAY_MAC: Mac = [0x0a, 0x6a, 0x6f, 0x65, 0x79, 0x01];

/// Why a pod could not be attached to the built-in network. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum BuiltinAttachError {
    /// No address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No host port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The lease can't be kept.
    #[error("keep the lease")]
    Lease(#[source] LeaseError),
    /// The hardware address asked for can't be used.
    #[error("{0:?} is no hardware address of one device, such as 0a:58:0a:58:00:02")]
    Mac(String),
    /// The pod's namespace can't be visited.
    #[error(transparent)]
    Visit(#[from] VisitError),
    /// The pair of interfaces can't be made.
    #[error("make interface {link}")]
    Link {
        /// Its name on the host.
        link: String,
        /// The reason.
        #[source]
        source: NetlinkError,
    },
    /// The pod's end can't be set up.
    #[error("set up {POD_LINK} in network namespace {netns}")]
    Inside {
        /// The namespace's file.
        netns: PathBuf,
        /// The reason.
        #[source]
        source: NetlinkError,
    },
    /// The host's end can't be set up.
    #[error("set up interface {link} and its routes")]
    Outside {
        /// Its name.
        link: String,
        /// The reason.
        #[source]
        source: NetlinkError,
    },
    /// Host ports can't be put into the rules.
    #[error("offer the host ports")]
    Rules(#[source] NetlinkError),
    /// No thread did it.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

impl Builtin {
    /// Attaches a pod. A second call for the same pod starts anew.
    pub(crate) async fn attach(
        &self,
        request: AttachRequest,
    ) -> Result<Attachment, BuiltinAttachError> {
        let inner = Arc::clone(&self.0);
        self.0
            .workers
            .run(move |home| inner.attach(home, &request))
            .await?
    }
}

impl Inner {
    fn attach(
        &self,
        home: &mut Home,
        request: &AttachRequest,
    ) -> Result<Attachment, BuiltinAttachError> {
        let result = self.take_lease(request).and_then(|lease| {
            self.connect(home, request, &lease)
                .map(|()| self.describe(lease))
        });
        if result.is_err()
            && let Err(error) = self.detach(home, &request.pod_id, Removal::Now)
        {
            tracing::warn!(pod = request.pod_id, %error, "a failed attachment left something");
        }
        result
    }

    /// Addresses and ports, in memory and on disk.
    fn take_lease(&self, request: &AttachRequest) -> Result<Lease, BuiltinAttachError> {
        let pod_id = &request.pod_id;
        let mac = request.mac.as_deref().map(parse_mac).transpose()?;
        let mut lease = Lease::new(pod_id, &request.pod_uid, link_name(pod_id));
        lease.ports = request
            .port_mappings
            .iter()
            .filter(|port| port.host_port != 0)
            .cloned()
            .collect();
        lease.fixed = !request.ips.is_empty() || mac.is_some();
        {
            let mut state = self.state();
            let before = state.leases.remove(pod_id);
            if let Some(old) = &before {
                state.addresses.give_back(pod_id, &old.ips);
                state.ports.give_back(pod_id, &old.ports);
            }
            drop(self.held.take(pod_id));
            let wanted = match &before {
                Some(old) if request.ips.is_empty() => &old.ips,
                _ => &request.ips,
            };
            let taken = state.addresses.take(pod_id, wanted);
            if let (Err(_), Some(old)) = (&taken, before) {
                // What it stands for is taken down with it.
                state.restore(old);
            }
            lease.ips = taken?;
            // The lease stands from here on, so that whatever fails later gives all of it back.
            let ports = state.ports.take(pod_id, &lease.ports);
            lease.mac = format_mac(mac.unwrap_or_else(|| mac_of(&lease.ips)));
            let mut kept = lease.clone();
            if ports.is_err() {
                kept.ports.clear();
            }
            state.leases.insert(pod_id.clone(), kept);
            ports?;
        }
        self.held
            .hold(pod_id, &lease.ports)
            .map_err(PortError::from)?;
        self.store
            .write(&lease)
            .map_err(BuiltinAttachError::Lease)?;
        Ok(lease)
    }

    fn connect(
        &self,
        home: &mut Home,
        request: &AttachRequest,
        lease: &Lease,
    ) -> Result<(), BuiltinAttachError> {
        let (netns, mut inside) = home.route_socket_in(&request.netns)?;
        let mac = parse_mac(&lease.mac)?;
        let mtu = self.state().mtu;
        let pair = VethPair {
            host_name: &lease.link,
            host_mac: GATEWAY_MAC,
            pod_name: POD_LINK,
            pod_mac: mac,
            pod_netns: netns.as_fd(),
            mtu,
        };
        let failed = |source| BuiltinAttachError::Link {
            link: lease.link.clone(),
            source,
        };
        let index = make_pair(home, &pair).map_err(failed)?;
        let gateways = self.gateways_of(&lease.ips);
        set_up_inside(&mut inside, &lease.ips, &gateways).map_err(|source| {
            BuiltinAttachError::Inside {
                netns: request.netns.clone(),
                source,
            }
        })?;
        let mut batch = Batch::new();
        let settings = [
            (route::DEVCONF_FORWARDING, 1),
            (route::DEVCONF_RP_FILTER, 1),
            (
                route::DEVCONF_ROUTE_LOCALNET,
                u32::from(!lease.ports.is_empty()),
            ),
        ];
        route::set_inet_conf(&mut batch, index, &settings);
        for (ip, gateway) in lease.ips.iter().zip(&gateways) {
            route::add_host_route(&mut batch, index, *ip, *gateway);
            route::add_neighbour(&mut batch, index, *ip, mac);
        }
        let outside = home
            .route
            .transact(batch)
            .and_then(|answers| answers.check(|_, _| false));
        outside.map_err(|source| BuiltinAttachError::Outside {
            link: lease.link.clone(),
            source,
        })?;
        self.offer_ports(home, lease)
    }

    fn offer_ports(&self, home: &mut Home, lease: &Lease) -> Result<(), BuiltinAttachError> {
        let elements = rules::elements(&lease.ips, &lease.ports);
        if elements.is_empty() {
            return Ok(());
        }
        let added = {
            let _rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
            home.netfilter
                .transact(rules::add(&elements))
                .and_then(|answers| answers.check(|_, _| false))
        };
        match added {
            Ok(_) => Ok(()),
            // The table was removed by others just now; making it anew brings the ports along.
            Err(NetlinkError::Refused {
                source: Errno::NOENT,
                ..
            }) => match self.rebuild_rules(home) {
                Err(super::HostError::Rules(source)) => Err(BuiltinAttachError::Rules(source)),
                _ => Ok(()),
            },
            Err(source) => Err(BuiltinAttachError::Rules(source)),
        }?;
        forget_flows(home, lease);
        Ok(())
    }

    /// For each address, the node's own address in its range.
    fn gateways_of(&self, ips: &[IpAddr]) -> Vec<Option<IpAddr>> {
        let ranges = self.state().addresses.ranges();
        let of = |ip: &IpAddr| {
            let same = |range: &&IpNet| range.is_ipv6() == ip.is_ipv6();
            let within = ranges.iter().find(|range| range.contains(*ip));
            within
                .or_else(|| ranges.iter().find(same))
                .and_then(|range| gateway(*range))
        };
        ips.iter().map(of).collect()
    }

    fn describe(&self, lease: Lease) -> Attachment {
        Attachment {
            provider: Provider::Builtin,
            interface: POD_LINK.to_owned(),
            host_interface: Some(lease.link),
            gateways: self.gateways_of(&lease.ips).into_iter().flatten().collect(),
            ips: lease.ips,
            mac: Some(lease.mac),
            port_mappings: lease.ports,
            cni: Vec::new(),
        }
    }
}

/// Makes the pair and returns the index of its end on the host. One left by an attempt that was
/// cut off is replaced.
fn make_pair(home: &mut Home, pair: &VethPair<'_>) -> Result<u32, NetlinkError> {
    let attempt = |home: &mut Home| {
        let mut batch = Batch::new();
        route::add_veth(&mut batch, pair);
        route::get_link(&mut batch, pair.host_name);
        home.route.transact(batch)?.check(|index, _| index != 0)
    };
    let answers = match attempt(home) {
        Err(error) if error.errno() == Some(Errno::EXIST) => {
            let mut batch = Batch::new();
            route::delete_link(&mut batch, pair.host_name);
            home.route.transact(batch)?;
            attempt(home)?
        }
        other => other?,
    };
    let index = answers.reply(1).and_then(route::link_index);
    index.ok_or(NetlinkError::Incomplete { got: 1, want: 2 })
}

fn set_up_inside(
    socket: &mut crate::netlink::Socket,
    ips: &[IpAddr],
    gateways: &[Option<IpAddr>],
) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    route::get_link(&mut batch, POD_LINK);
    let answers = socket.transact(batch)?.check(|_, _| false)?;
    let index = answers.reply(0).and_then(route::link_index);
    let index = index.ok_or(NetlinkError::Incomplete { got: 0, want: 1 })?;
    let mut batch = Batch::new();
    route::set_up(&mut batch, route::LOOPBACK);
    route::set_up(&mut batch, index);
    for ip in ips {
        route::add_address(&mut batch, index, *ip);
    }
    for gateway in gateways.iter().flatten() {
        route::add_neighbour(&mut batch, index, *gateway, GATEWAY_MAC);
        route::add_default_route(&mut batch, index, *gateway);
    }
    socket.transact(batch)?.check(|_, _| false).map(drop)
}
