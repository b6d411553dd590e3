//! One pod out.

use std::sync::{Arc, PoisonError};

use rustix::io::Errno;

use super::lease::{Lease, LeaseError};
use super::{Builtin, Inner, rules};
use crate::netlink::nft::Element;
use crate::netlink::{Batch, NetlinkError, conntrack, route};
use crate::types::Protocol;
use crate::worker::{Home, WorkerError};

/// Why a pod could not be detached; it can be tried again.
#[derive(Debug, thiserror::Error)]
pub enum BuiltinDetachError {
    /// The host ports can't be withdrawn.
    #[error("withdraw the host ports")]
    Rules(#[source] NetlinkError),
    /// The interface can't be removed.
    #[error("remove interface {link}")]
    Link {
        /// Its name.
        link: String,
        /// The reason.
        #[source]
        source: NetlinkError,
    },
    /// The lease can't be given back.
    #[error("give back the lease")]
    Lease(#[source] LeaseError),
    /// No thread did it.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

impl Builtin {
    /// Detaches a pod. Missing is success.
    pub(crate) async fn detach(&self, pod_id: &str) -> Result<(), BuiltinDetachError> {
        let inner = Arc::clone(&self.0);
        let pod_id = pod_id.to_owned();
        self.0
            .workers
            .run(move |home| inner.detach(home, &pod_id, Removal::Later))
            .await?
    }
}

impl Inner {
    /// Takes everything away, the lease last: an address is free only when nothing leads to it.
    ///
    /// To remove an interface the kernel waits for all CPUs, some ten milliseconds. It removes it
    /// anyway, with many others at once, when the pod's namespace ends, so with
    /// [`Removal::Later`] only its routes go now; what is still there a moment later is removed
    /// then.
    pub(super) fn detach(
        &self,
        home: &mut Home,
        pod_id: &str,
        removal: Removal,
    ) -> Result<(), BuiltinDetachError> {
        let Some(lease) = self.state().leases.get(pod_id).cloned() else {
            return Ok(());
        };
        self.withdraw_ports(home, &lease)
            .map_err(BuiltinDetachError::Rules)?;
        let removed = match removal {
            Removal::Now => remove_link(home, &lease.link).map(|()| None),
            Removal::Later => remove_routes(home, &lease),
        };
        let left = removed.map_err(|source| BuiltinDetachError::Link {
            link: lease.link.clone(),
            source,
        })?;
        self.store
            .remove(pod_id)
            .map_err(BuiltinDetachError::Lease)?;
        drop(self.held.take(pod_id));
        let mut state = self.state();
        state.leases.remove(pod_id);
        state.addresses.give_back(pod_id, &lease.ips);
        state.ports.give_back(pod_id, &lease.ports);
        drop(state);
        if let Some(link) = left {
            self.reaper.later(link);
        }
        Ok(())
    }

    fn withdraw_ports(&self, home: &mut Home, lease: &Lease) -> Result<(), NetlinkError> {
        let elements = rules::elements(&lease.ips, &lease.ports);
        if elements.is_empty() {
            return Ok(());
        }
        let _rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lease) = self.state().leases.get_mut(&lease.pod_id) {
            // A rebuild from now on leaves them out; the claim stays until all is done.
            lease.withdrawn = true;
        }
        let missing = |_: usize, errno| errno == Errno::NOENT;
        let together = home.netfilter.transact(rules::delete(&elements))?;
        // One that is missing already fails all: each on its own then.
        let each = if together.refusals.is_empty() {
            &[][..]
        } else {
            &elements
        };
        for element in each {
            let one: &[Element] = std::slice::from_ref(element);
            home.netfilter
                .transact(rules::delete(one))?
                .check(missing)?;
        }
        forget_flows(home, lease);
        Ok(())
    }
}

/// When a pod's interface is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    Now,
    Later,
}

/// Missing is success.
pub(super) fn remove_link(home: &mut Home, link: &str) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    route::delete_link(&mut batch, link);
    let missing = |_: usize, errno| errno == Errno::NODEV;
    home.route.transact(batch)?.check(missing).map(drop)
}

/// Missing is success.
pub(super) fn remove_link_by_index(home: &mut Home, index: u32) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    route::delete_link_by_index(&mut batch, index);
    let missing = |_: usize, errno| errno == Errno::NODEV;
    home.route.transact(batch)?.check(missing).map(drop)
}

/// Removes the routes to a pod; the index of its interface, where there is one.
fn remove_routes(home: &mut Home, lease: &Lease) -> Result<Option<u32>, NetlinkError> {
    let mut batch = Batch::new();
    route::get_link(&mut batch, &lease.link);
    let missing = |_: usize, errno| errno == Errno::NODEV;
    let answers = home.route.transact(batch)?.check(missing)?;
    let Some(index) = answers.reply(0).and_then(route::link_index) else {
        return Ok(None);
    };
    let mut batch = Batch::new();
    for ip in &lease.ips {
        route::delete_host_route(&mut batch, index, *ip);
    }
    let missing = |_: usize, errno| matches!(errno, Errno::SRCH | Errno::NODEV | Errno::NOENT);
    home.route.transact(batch)?.check(missing)?;
    Ok(Some(index))
}

/// Where the packets of a UDP flow go is decided by its first: flows to the lease's ports from
/// before a change would go on to nowhere as long as they are used.
pub(super) fn forget_flows(home: &mut Home, lease: &Lease) {
    let udp = lease
        .ports
        .iter()
        .filter(|port| port.protocol == Protocol::Udp);
    for port in udp.map(|mapping| mapping.host_port) {
        if let Err(error) = conntrack::forget_udp(&mut home.netfilter, port) {
            tracing::warn!(port, %error, "UDP flows to a host port may go on to where they went");
        }
    }
}
