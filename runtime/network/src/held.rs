//! Bound sockets that keep other programs off pods' host ports.
//!
//! They are never read: packets are sent on to the pod before sockets are looked up. They live in
//! the pods' shims, so that nothing takes a port while the daemon is away; here is where they are
//! made, and where those stay whose shim is too old to take them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::types::{PortMapping, Protocol};

/// Why a host port can't be held.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HoldError {
    /// Another socket of the node has it.
    #[error("host port {protocol}/{port} is taken by a program on the node")]
    InUse {
        /// Transport.
        protocol: Protocol,
        /// The port.
        port: u16,
    },
    /// It can't be bound for another reason.
    #[error("hold host port {protocol}/{port}")]
    Bind {
        /// Transport.
        protocol: Protocol,
        /// The port.
        port: u16,
        /// The reason.
        #[source]
        source: Errno,
    },
}

/// Sockets of pods whose shims do not have them (yet).
#[derive(Debug, Clone)]
pub(crate) struct Held {
    wanted: bool,
    sockets: Arc<Mutex<HashMap<String, Vec<OwnedFd>>>>,
}

impl Held {
    /// Holds nothing unless `wanted`.
    pub(crate) fn new(wanted: bool) -> Self {
        Self {
            wanted,
            sockets: Arc::default(),
        }
    }

    /// Binds a socket for each of a pod's ports, in the place of those from before.
    pub(crate) fn hold(&self, pod_id: &str, mappings: &[PortMapping]) -> Result<(), HoldError> {
        drop(self.take(pod_id));
        if self.wanted {
            let sockets = bind_all(mappings)?;
            self.lock().insert(pod_id.to_owned(), sockets);
        }
        Ok(())
    }

    /// Hands over a pod's sockets.
    pub(crate) fn take(&self, pod_id: &str) -> Vec<OwnedFd> {
        self.lock().remove(pod_id).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<OwnedFd>>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bind_all(mappings: &[PortMapping]) -> Result<Vec<OwnedFd>, HoldError> {
    let wanted = mappings.iter().filter(|mapping| mapping.host_port != 0);
    wanted
        .filter_map(|mapping| hold_one(mapping).transpose())
        .collect()
}

fn hold_one(mapping: &PortMapping) -> Result<Option<OwnedFd>, HoldError> {
    let (protocol, port) = (mapping.protocol, mapping.host_port);
    if protocol == Protocol::Sctp {
        // Most kernels have no SCTP sockets, so nothing else can take the port.
        return Ok(None);
    }
    let any6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let result = match mapping.host_ip {
        Some(ip) => bind(protocol, SocketAddr::new(ip, port), true),
        None => match bind(protocol, SocketAddr::new(any6, port), false) {
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => bind(
                protocol,
                SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
                true,
            ),
            other => other,
        },
    };
    match result {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ADDRINUSE) => Err(HoldError::InUse { protocol, port }),
        Err(source) => Err(HoldError::Bind {
            protocol,
            port,
            source,
        }),
    }
}

fn bind(protocol: Protocol, address: SocketAddr, one_family: bool) -> Result<OwnedFd, Errno> {
    match bind_once(protocol, address, one_family, false) {
        // Connections that have ended linger for a minute; they are no reason to refuse, a
        // listener is.
        Err(Errno::ADDRINUSE) if protocol == Protocol::Tcp => {
            bind_once(protocol, address, one_family, true)
        }
        other => other,
    }
}

fn bind_once(
    protocol: Protocol,
    address: SocketAddr,
    one_family: bool,
    reuse: bool,
) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv6() {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let (kind, number) = match protocol {
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Tcp | Protocol::Sctp => (SocketType::STREAM, ipproto::TCP),
    };
    let fd = net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(number))?;
    sockopt::set_socket_reuseaddr(&fd, reuse)?;
    // The address need not be there (yet).
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, one_family)?;
        sockopt::set_ipv6_freebind(&fd, true)?;
    } else {
        sockopt::set_ip_freebind(&fd, true)?;
    }
    if protocol == Protocol::Udp {
        sockopt::set_socket_recv_buffer_size(&fd, 1)?;
    }
    net::bind(&fd, &address)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(host_port: u16) -> PortMapping {
        PortMapping {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_port,
            host_ip: None,
        }
    }

    #[test]
    fn a_listener_is_told_and_a_held_port_is_kept() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let held = Held::new(true);
        let refused = held.hold("a", &[mapping(port)]).unwrap_err();
        assert_eq!(
            refused,
            HoldError::InUse {
                protocol: Protocol::Tcp,
                port
            }
        );
        drop(listener);
        held.hold("a", &[mapping(port)]).unwrap();
        std::net::TcpListener::bind(("127.0.0.1", port)).unwrap_err();
        let taken = held.take("a");
        assert_eq!(taken.len(), 1);
        std::net::TcpListener::bind(("127.0.0.1", port)).unwrap_err();
        drop(taken);
        std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    }
}
