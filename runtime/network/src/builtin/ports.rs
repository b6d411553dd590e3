//! Host ports: which pod has which.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::held::HoldError;
use crate::types::{PortMapping, Protocol};

/// Why a host port can't be offered.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PortError {
    /// Another pod has it.
    #[error("host port {protocol}/{port} is taken by pod {holder}")]
    Taken {
        /// Transport.
        protocol: Protocol,
        /// The port.
        port: u16,
        /// The pod that has it.
        holder: String,
    },
    /// The same pod asks for it twice.
    #[error("host port {protocol}/{port} is asked for twice")]
    Twice {
        /// Transport.
        protocol: Protocol,
        /// The port.
        port: u16,
    },
    /// The node does not give it.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// The mapping leads nowhere.
    #[error("host port {protocol}/{port} has no container port")]
    NoContainerPort {
        /// Transport.
        protocol: Protocol,
        /// The port.
        port: u16,
    },
}

#[derive(Debug)]
struct Claim {
    host_ip: Option<IpAddr>,
    pod_id: String,
}

/// Host ports in use.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    claims: HashMap<(Protocol, u16), Vec<Claim>>,
}

/// Two claims of one port collide unless they are for different addresses.
fn collide(a: Option<IpAddr>, b: Option<IpAddr>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) if a.is_ipv6() != b.is_ipv6() => false,
        (Some(a), Some(b)) => a == b || a.is_unspecified() || b.is_unspecified(),
        _ => true,
    }
}

impl Ports {
    /// Claims all of a pod's ports, or none.
    pub(crate) fn take(&mut self, pod_id: &str, wanted: &[PortMapping]) -> Result<(), PortError> {
        for (at, mapping) in wanted.iter().enumerate() {
            let (protocol, port) = (mapping.protocol, mapping.host_port);
            if mapping.container_port == 0 {
                return Err(PortError::NoContainerPort { protocol, port });
            }
            let same = |other: &PortMapping| {
                other.protocol == protocol
                    && other.host_port == port
                    && collide(other.host_ip, mapping.host_ip)
            };
            if wanted[..at].iter().any(same) {
                return Err(PortError::Twice { protocol, port });
            }
            let claims = self
                .claims
                .get(&(protocol, port))
                .map_or(&[][..], Vec::as_slice);
            let other = claims
                .iter()
                .find(|claim| claim.pod_id != pod_id && collide(claim.host_ip, mapping.host_ip));
            if let Some(claim) = other {
                return Err(PortError::Taken {
                    protocol,
                    port,
                    holder: claim.pod_id.clone(),
                });
            }
        }
        self.restore(pod_id, wanted);
        Ok(())
    }

    /// Marks ports as a pod's, as told by its lease.
    pub(crate) fn restore(&mut self, pod_id: &str, mappings: &[PortMapping]) {
        for mapping in mappings {
            let claims = self
                .claims
                .entry((mapping.protocol, mapping.host_port))
                .or_default();
            claims.push(Claim {
                host_ip: mapping.host_ip,
                pod_id: pod_id.to_owned(),
            });
        }
    }

    pub(crate) fn give_back(&mut self, pod_id: &str, mappings: &[PortMapping]) {
        for mapping in mappings {
            let key = (mapping.protocol, mapping.host_port);
            if let Some(claims) = self.claims.get_mut(&key) {
                claims.retain(|claim| claim.pod_id != pod_id);
                if claims.is_empty() {
                    self.claims.remove(&key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(host_port: u16, host_ip: Option<&str>) -> PortMapping {
        let host_ip = host_ip.map(|ip| ip.parse().unwrap());
        PortMapping {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_port,
            host_ip,
        }
    }

    #[test]
    fn a_port_has_one_pod_per_address() {
        let mut ports = Ports::default();
        ports.take("a", &[mapping(80, Some("192.0.2.1"))]).unwrap();
        ports.take("b", &[mapping(80, Some("192.0.2.2"))]).unwrap();
        let taken = ports
            .take("c", &[mapping(81, None), mapping(80, None)])
            .unwrap_err();
        let holder = "a".to_owned();
        assert_eq!(
            taken,
            PortError::Taken {
                protocol: Protocol::Tcp,
                port: 80,
                holder
            }
        );
        ports.take("c", &[mapping(81, None)]).unwrap();
        ports.give_back("c", &[mapping(81, None)]);
        ports.give_back("a", &[mapping(80, Some("192.0.2.1"))]);
        ports.give_back("b", &[mapping(80, Some("192.0.2.2"))]);
        assert!(ports.claims.is_empty());
    }

    #[test]
    fn the_unspecified_address_is_every_one_of_its_family() {
        let mut ports = Ports::default();
        ports.take("a", &[mapping(80, Some("0.0.0.0"))]).unwrap();
        ports
            .take("b", &[mapping(80, Some("192.0.2.1"))])
            .unwrap_err();
        ports.take("b", &[mapping(80, Some("::"))]).unwrap();
    }

    #[test]
    fn one_pod_can_not_ask_twice_or_for_nothing() {
        let mut ports = Ports::default();
        let twice = ports.take("a", &[mapping(80, None), mapping(80, Some("192.0.2.1"))]);
        assert_eq!(
            twice,
            Err(PortError::Twice {
                protocol: Protocol::Tcp,
                port: 80
            })
        );
        let mut nowhere = mapping(80, None);
        nowhere.container_port = 0;
        ports.take("a", &[nowhere]).unwrap_err();
    }
}
