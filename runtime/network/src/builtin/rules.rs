//! The nftables table of the built-in network: host ports, masquerading, and the guard that
//! `route_localnet` makes necessary (CVE-2020-8558).
//!
//! Host ports are elements of maps, so a pod costs one element per port and no rule; the rules
//! are the same few however many pods there are.

use std::net::IpAddr;

use crate::ipnet::IpNet;
use crate::netlink::Batch;
use crate::netlink::nft::{
    Change, Element, Hook, Meta, NFPROTO_IPV4, NFPROTO_IPV6, REG, Rule, SetSpec, TYPE_IPV4,
    TYPE_IPV6, TYPE_PROTOCOL, TYPE_SERVICE,
};
use crate::netlink::route::octets;
use crate::types::{PortMapping, Protocol};

/// Name of the table.
pub(crate) const TABLE: &str = "joey";
/// Names of pods' interfaces on the host begin with this.
pub(crate) const LINK_PREFIX: &str = "jy";

const ANY4: &str = "host-ports-v4";
const ONE4: &str = "host-ports-on-v4";
const ANY6: &str = "host-ports-v6";
const ONE6: &str = "host-ports-on-v6";
const HAIRPIN4: &str = "hairpin-v4";
const HAIRPIN6: &str = "hairpin-v6";
const PORTS: &str = "host-ports";
const POSTROUTING: &str = "postrouting";

const TO4: Option<(&[u32], u32)> = Some((&[TYPE_IPV4, TYPE_SERVICE], 8));
const TO6: Option<(&[u32], u32)> = Some((&[TYPE_IPV6, TYPE_SERVICE], 20));
const SETS: [SetSpec; 6] = [
    SetSpec {
        name: ANY4,
        key: (&[TYPE_PROTOCOL, TYPE_SERVICE], 8),
        data: TO4,
    },
    SetSpec {
        name: ONE4,
        key: (&[TYPE_IPV4, TYPE_PROTOCOL, TYPE_SERVICE], 12),
        data: TO4,
    },
    SetSpec {
        name: ANY6,
        key: (&[TYPE_PROTOCOL, TYPE_SERVICE], 8),
        data: TO6,
    },
    SetSpec {
        name: ONE6,
        key: (&[TYPE_IPV6, TYPE_PROTOCOL, TYPE_SERVICE], 24),
        data: TO6,
    },
    SetSpec {
        name: HAIRPIN4,
        key: (&[TYPE_IPV4, TYPE_IPV4], 8),
        data: None,
    },
    SetSpec {
        name: HAIRPIN6,
        key: (&[TYPE_IPV6, TYPE_IPV6], 32),
        data: None,
    },
];

/// Offsets and lengths of the addresses in a family's header.
struct Family {
    number: u8,
    source: u32,
    destination: u32,
    length: u32,
}

const IPV4: Family = Family {
    number: NFPROTO_IPV4,
    source: 12,
    destination: 16,
    length: 4,
};
const IPV6: Family = Family {
    number: NFPROTO_IPV6,
    source: 8,
    destination: 24,
    length: 16,
};

/// What masquerading depends on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Masquerade {
    /// Sources; none turns masquerading off.
    pub(crate) pods: Vec<IpNet>,
    /// Destinations that see pods' own addresses.
    pub(crate) except: Vec<IpNet>,
}

/// Makes the table anew, in one step.
pub(crate) fn rebuild(masquerade: &Masquerade, elements: &[Element]) -> Batch {
    let mut change = Change::new(TABLE);
    // Adding first makes the removal succeed also where there is no table.
    change.add_table();
    change.delete_table();
    change.add_table();
    for set in &SETS {
        change.add_set(set);
    }
    guard(&mut change);
    host_ports(&mut change);
    postrouting(&mut change, masquerade);
    change.add_elements(elements);
    change.finish()
}

pub(crate) fn add(elements: &[Element]) -> Batch {
    let mut change = Change::new(TABLE);
    change.add_elements(elements);
    change.finish()
}

pub(crate) fn delete(elements: &[Element]) -> Batch {
    let mut change = Change::new(TABLE);
    change.delete_elements(elements);
    change.finish()
}

/// Pods' interfaces have `route_localnet`, so that the node reaches host ports by 127.0.0.1: no
/// packet from a pod may claim a loopback address. Raw priority sees addresses as on the wire,
/// before the answers of such connections are translated back.
fn guard(change: &mut Change<'_>) {
    change.add_base_chain("guard", "filter", Hook::Prerouting, -300);
    for offset in [IPV4.source, IPV4.destination] {
        change.add_rule("guard", |rule| {
            from_pod(rule)
                .family(NFPROTO_IPV4)
                .network(offset, 1, REG)
                .equals(REG, &[127])
                .drop();
        });
    }
}

fn from_pod<'r, 'a, 'b>(rule: &'r mut Rule<'a, 'b>) -> &'r mut Rule<'a, 'b> {
    rule.meta(Meta::InName, REG)
        .equals(REG, LINK_PREFIX.as_bytes())
}

fn to_pod<'r, 'a, 'b>(rule: &'r mut Rule<'a, 'b>) -> &'r mut Rule<'a, 'b> {
    rule.meta(Meta::OutName, REG)
        .equals(REG, LINK_PREFIX.as_bytes())
}

/// Registers: the looked-up address begins at `REG`; what follows it depends on its length.
fn host_ports(change: &mut Change<'_>) {
    change.add_chain(PORTS);
    for (family, one, any) in [(IPV4, ONE4, ANY4), (IPV6, ONE6, ANY6)] {
        let words = family.length / 4;
        let port = REG + words;
        change.add_rule(PORTS, |rule| {
            rule.family(family.number)
                .network(family.destination, family.length, REG)
                .meta(Meta::Protocol, REG + words)
                .transport(2, 2, REG + words + 1)
                .map(one, REG, REG)
                .dnat(family.number, REG, port);
        });
        change.add_rule(PORTS, |rule| {
            rule.family(family.number)
                .meta(Meta::Protocol, REG)
                .transport(2, 2, REG + 1)
                .map(any, REG, REG)
                .dnat(family.number, REG, port);
        });
    }
    for (chain, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        change.add_base_chain(chain, "nat", hook, -100);
        change.add_rule(chain, |rule| {
            rule.local_destination().jump(PORTS);
        });
    }
}

fn postrouting(change: &mut Change<'_>, masquerade: &Masquerade) {
    change.add_base_chain(POSTROUTING, "nat", Hook::Postrouting, 100);
    // The node itself, calling a host port by 127.0.0.1.
    change.add_rule(POSTROUTING, |rule| {
        to_pod(rule)
            .family(NFPROTO_IPV4)
            .network(IPV4.source, 1, REG)
            .equals(REG, &[127]);
        rule.masquerade();
    });
    // A pod that reaches itself by its host port.
    for (family, set) in [(IPV4, HAIRPIN4), (IPV6, HAIRPIN6)] {
        change.add_rule(POSTROUTING, |rule| {
            rule.family(family.number)
                .network(family.source, family.length, REG)
                .network(family.destination, family.length, REG + family.length / 4)
                .in_set(set, REG)
                .masquerade();
        });
    }
    change.add_rule(POSTROUTING, |rule| {
        to_pod(rule).leave();
    });
    if masquerade.pods.is_empty() {
        return;
    }
    change.add_rule(POSTROUTING, |rule| {
        let first = rule.family(NFPROTO_IPV4).network(IPV4.destination, 1, REG);
        first.mask(REG, &[0xf0]).equals(REG, &[0xe0]).leave();
    });
    change.add_rule(POSTROUTING, |rule| {
        let first = rule.family(NFPROTO_IPV6).network(IPV6.destination, 1, REG);
        first.equals(REG, &[0xff]).leave();
    });
    for range in masquerade.pods.iter().chain(&masquerade.except) {
        change.add_rule(POSTROUTING, |rule| {
            within(rule, *range, |family| family.destination).leave();
        });
    }
    for range in &masquerade.pods {
        change.add_rule(POSTROUTING, |rule| {
            within(rule, *range, |family| family.source).masquerade();
        });
    }
}

fn within<'r, 'a, 'b>(
    rule: &'r mut Rule<'a, 'b>,
    range: IpNet,
    offset: impl Fn(&Family) -> u32,
) -> &'r mut Rule<'a, 'b> {
    let family = if range.is_ipv6() { IPV6 } else { IPV4 };
    rule.family(family.number)
        .network(offset(&family), family.length, REG)
        .mask(REG, &range.mask_bytes())
        .equals(REG, &octets(range.network()))
}

fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

/// The elements a pod's host ports need, those of one set next to each other.
pub(crate) fn elements(ips: &[IpAddr], mappings: &[PortMapping]) -> Vec<Element> {
    let mut elements = Vec::new();
    for mapping in mappings.iter().filter(|mapping| mapping.host_port != 0) {
        for ip in ips {
            elements.extend(element(*ip, mapping));
        }
    }
    if !elements.is_empty() {
        for ip in ips {
            let set = if ip.is_ipv6() { HAIRPIN6 } else { HAIRPIN4 };
            elements.push(Element {
                set,
                key: octets(*ip).repeat(2),
                data: None,
            });
        }
    }
    elements.sort_by_key(|element| element.set);
    elements
}

fn element(ip: IpAddr, mapping: &PortMapping) -> Option<Element> {
    let (any, one) = if ip.is_ipv6() {
        (ANY6, ONE6)
    } else {
        (ANY4, ONE4)
    };
    let padded = |port: u16| {
        let bytes = port.to_be_bytes();
        [bytes[0], bytes[1], 0, 0]
    };
    let mut key = vec![protocol_number(mapping.protocol), 0, 0, 0];
    key.extend(padded(mapping.host_port));
    let mut data = octets(ip);
    data.extend(padded(mapping.container_port));
    let set = match mapping.host_ip {
        None => any,
        Some(host) if host.is_ipv6() != ip.is_ipv6() => return None,
        Some(host) if host.is_unspecified() => any,
        Some(host) => {
            key.splice(0..0, octets(host));
            one
        }
    };
    Some(Element {
        set,
        key,
        data: Some(data),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(host_ip: Option<&str>) -> PortMapping {
        PortMapping {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_port: 8080,
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        }
    }

    #[test]
    fn a_wildcard_port_is_offered_in_both_families() {
        let ips = ["10.88.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let found = elements(&ips, &[mapping(None)]);
        let sets: Vec<_> = found.iter().map(|element| element.set).collect();
        assert_eq!(sets, [HAIRPIN4, HAIRPIN6, ANY4, ANY6]);
        assert_eq!(found[2].key, [6, 0, 0, 0, 0x1f, 0x90, 0, 0]);
        assert_eq!(
            found[2].data.as_deref(),
            Some(&[10, 88, 0, 2, 0, 80, 0, 0][..])
        );
        assert_eq!(found[3].data.as_ref().map(Vec::len), Some(20));
    }

    #[test]
    fn a_port_on_one_address_is_offered_in_its_family_only() {
        let ips = ["10.88.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let found = elements(&ips, &[mapping(Some("192.0.2.1"))]);
        let port: Vec<_> = found
            .iter()
            .filter(|element| element.data.is_some())
            .collect();
        assert_eq!(port.len(), 1);
        assert_eq!(port[0].set, ONE4);
        assert_eq!(port[0].key, [192, 0, 2, 1, 6, 0, 0, 0, 0x1f, 0x90, 0, 0]);
        let any = elements(&ips, &[mapping(Some("0.0.0.0"))]);
        assert!(any.iter().any(|element| element.set == ANY4));
        assert!(!any.iter().any(|element| element.set == ANY6));
    }

    #[test]
    fn a_pod_without_host_ports_needs_nothing() {
        let mut none = mapping(None);
        none.host_port = 0;
        assert_eq!(elements(&["10.88.0.2".parse().unwrap()], &[none]), []);
    }
}
