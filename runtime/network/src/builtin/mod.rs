//! The built-in network: a veth pair per pod, routed, not bridged.
//!
//! Each pod has its addresses with full prefixes and a default route through the node; the node
//! has one route per address. So every packet passes the node's routing and connection tracking
//! (a bridge would switch answers of a Service on the same node past it), nothing limits the
//! number of pods, and an address that moves is only a route. Neighbours are permanent entries on
//! both ends: no ARP, no limit of the neighbour table.

mod attach;
mod detach;
pub(crate) mod host;
pub(crate) mod ipam;
pub(crate) mod lease;
mod names;
pub(crate) mod ports;
mod reap;
pub(crate) mod rules;
mod watch;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::NetworkConfig;
use crate::held::Held;
use crate::ipnet::IpNet;
use crate::netlink::{NetlinkError, route};
use crate::types::Attachment;
use crate::worker::{Home, WorkerError, Workers};

pub(crate) use attach::BuiltinAttachError;
pub(crate) use detach::BuiltinDetachError;
use detach::Removal;
use host::HostError;
use ipam::Addresses;
use lease::{Lease, LeaseError, Store};
use ports::Ports;

/// MTU where the node has no default route.
const FALLBACK_MTU: u32 = 1500;

/// Why the built-in network could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The node could not be prepared.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The rules can't be watched.
    #[error("watch over the nftables rules")]
    Watch(#[source] NetlinkError),
    /// No thread did it.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

/// Why a lost lease could not be made again.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It can't be kept.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The rules could not be made.
    #[error(transparent)]
    Host(#[from] HostError),
    /// No thread did it.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

/// Why leftovers could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The node's links can't be read.
    #[error("read the node's links")]
    Links(#[source] NetlinkError),
    /// No thread did it.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

#[derive(Debug, Default)]
struct State {
    addresses: Addresses,
    ports: Ports,
    leases: HashMap<String, Lease>,
    mtu: u32,
    watcher: Option<watch::Watcher>,
    reaping: Option<reap::Reaping>,
}

impl State {
    /// Takes a lease as it was made before.
    fn restore(&mut self, lease: Lease) {
        self.addresses.restore(&lease.pod_id, &lease.ips);
        self.ports.restore(&lease.pod_id, &lease.ports);
        self.leases.insert(lease.pod_id.clone(), lease);
    }
}

#[derive(Debug)]
struct Inner {
    config: NetworkConfig,
    store: Store,
    workers: Workers,
    held: Held,
    state: Mutex<State>,
    /// Held while the rules are brought in line with `state`.
    rules: Mutex<()>,
    reaper: reap::Reaper,
}

/// The built-in network of a node.
#[derive(Debug, Clone)]
pub(crate) struct Builtin(Arc<Inner>);

impl Builtin {
    /// Reads the leases; changes nothing yet. Wants a tokio runtime.
    pub(crate) fn open(
        config: &NetworkConfig,
        workers: Workers,
        held: Held,
    ) -> Result<Self, LeaseError> {
        let (store, leases) = Store::open(config.state_dir.join("leases"))?;
        let mut state = State::default();
        for lease in leases {
            state.restore(lease);
        }
        let inner = Arc::new(Inner {
            config: config.clone(),
            store,
            workers,
            held,
            state: Mutex::new(state),
            rules: Mutex::new(()),
            reaper: reap::Reaper::default(),
        });
        let reaping = reap::start(&inner);
        inner.state().reaping = Some(reaping);
        Ok(Self(inner))
    }

    /// True if pods are attached to it.
    pub(crate) fn in_use(&self) -> bool {
        self.0.in_use()
    }

    pub(crate) fn started(&self) -> bool {
        self.0.state().watcher.is_some()
    }

    /// Prepares the node for pods with addresses of these ranges (of the configured ones if
    /// empty), and watches over the rules from now on.
    pub(crate) async fn start(&self, ranges: &[IpNet]) -> Result<(), StartError> {
        let inner = Arc::clone(&self.0);
        let ranges = ranges.to_vec();
        self.0
            .workers
            .run(move |home| inner.start(home, &ranges))
            .await??;
        let mut state = self.0.state();
        if state.watcher.is_none() {
            state.watcher = Some(watch::start(&self.0).map_err(StartError::Watch)?);
        }
        Ok(())
    }

    /// Makes a pod's lease again from its attachment, if it is lost: a pod that runs keeps its
    /// interface, its addresses and its ports.
    pub(crate) async fn restore(
        &self,
        pod_id: &str,
        attachment: &Attachment,
    ) -> Result<(), RestoreError> {
        let lease = {
            let mut state = self.0.state();
            if state.leases.contains_key(pod_id) {
                return Ok(());
            }
            let lease = Lease::of(pod_id, attachment);
            state.restore(lease.clone());
            lease
        };
        tracing::warn!(
            pod_id,
            "the lease is lost, and made again from the pod's record"
        );
        self.0.store.write(&lease)?;
        if self.started() {
            let inner = Arc::clone(&self.0);
            self.0
                .workers
                .run(move |home| inner.rebuild_rules(home))
                .await??;
        }
        Ok(())
    }

    /// Removes what belongs to pods not named here: leases, links, rules.
    pub(crate) async fn sweep(&self, known: &[String]) -> Result<(), SweepError> {
        let known: HashSet<String> = known.iter().cloned().collect();
        let inner = Arc::clone(&self.0);
        self.0
            .workers
            .run(move |home| inner.sweep(home, &known))
            .await?
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, home: &mut Home, ranges: &[IpNet]) -> Result<(), HostError> {
        let ranges = self.choose_ranges(home, ranges)?;
        host::enable_forwarding(ranges.iter().any(IpNet::is_ipv6))?;
        host::set_up_device(&mut home.route, &self.config.bridge, &ranges)?;
        let mtu = self
            .config
            .mtu
            .or_else(|| host::default_mtu(&mut home.route));
        {
            let mut state = self.state();
            state.addresses.set_ranges(&ranges);
            state.mtu = mtu.unwrap_or(FALLBACK_MTU);
        }
        self.rebuild_rules(home)
    }

    fn choose_ranges(&self, home: &mut Home, asked: &[IpNet]) -> Result<Vec<IpNet>, HostError> {
        let wanted = if asked.is_empty() {
            &self.config.subnets
        } else {
            asked
        };
        if wanted.is_empty() {
            let chosen = self.config.state_dir.join("range");
            return Ok(vec![host::free_range(
                &mut home.route,
                &chosen,
                self.in_use(),
            )?]);
        }
        let usable = |range: &&IpNet| {
            let usable = !range.is_ipv6() || host::has_ipv6();
            if !usable {
                tracing::warn!(%range, "this kernel has no IPv6: the range is not used");
            }
            usable
        };
        Ok(wanted.iter().filter(usable).copied().collect())
    }

    fn in_use(&self) -> bool {
        !self.state().leases.is_empty()
    }

    /// Makes the rules anew from what is leased.
    fn rebuild_rules(&self, home: &mut Home) -> Result<(), HostError> {
        let _rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let (masquerade, elements) = {
            let state = self.state();
            let mut pods = state.addresses.ranges();
            let strays = state.leases.values().flat_map(|lease| &lease.ips);
            let strays: Vec<IpNet> = strays
                .filter(|ip| !pods.iter().any(|range| range.contains(**ip)))
                .filter_map(|ip| IpNet::new(*ip, if ip.is_ipv6() { 128 } else { 32 }))
                .collect();
            pods.extend(strays);
            let leases = state.leases.values().filter(|lease| !lease.withdrawn);
            let mut elements: Vec<_> = leases
                .flat_map(|lease| rules::elements(&lease.ips, &lease.ports))
                .collect();
            elements.sort_by_key(|element| element.set);
            let pods = if self.config.masquerade {
                pods
            } else {
                Vec::new()
            };
            let except = self.config.masquerade_except.clone();
            (rules::Masquerade { pods, except }, elements)
        };
        home.netfilter
            .transact(rules::rebuild(&masquerade, &elements))
            .and_then(|answers| answers.check(|_, _| false))
            .map(drop)
            .map_err(HostError::Rules)
    }

    fn sweep(&self, home: &mut Home, known: &HashSet<String>) -> Result<(), SweepError> {
        let unknown: Vec<String> = {
            let state = self.state();
            state
                .leases
                .keys()
                .filter(|pod| !known.contains(*pod))
                .cloned()
                .collect()
        };
        for pod_id in unknown {
            tracing::info!(pod_id, "removing the network leftovers of an unknown pod");
            if let Err(error) = self.detach(home, &pod_id, Removal::Now) {
                tracing::warn!(pod_id, %error, "network leftovers stay behind");
            }
        }
        let mut used: HashSet<String> = known
            .iter()
            .map(|pod_id| names::link_name(pod_id))
            .collect();
        used.extend(self.state().leases.values().map(|lease| lease.link.clone()));
        let links = route::links(&mut home.route).map_err(SweepError::Links)?;
        for link in links {
            if !names::is_pod_link(&link.name) || used.contains(&link.name) {
                continue;
            }
            if let Err(error) = detach::remove_link(home, &link.name) {
                tracing::warn!(link = link.name, %error, "interface stays behind");
            }
        }
        Ok(())
    }
}
