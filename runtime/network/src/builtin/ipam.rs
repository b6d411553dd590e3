//! Which address belongs to which pod, in memory; leases on disk are the truth.
//!
//! Addresses are handed out in turn, so that one just given back is not at once another pod's.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::ipnet::IpNet;

/// Why no address could be given.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AddressError {
    /// All are in use.
    #[error("no free address is left in {range}: all {used} are in use")]
    Exhausted {
        /// The range.
        range: IpNet,
        /// Addresses in use.
        used: usize,
    },
    /// The address asked for belongs to another pod.
    #[error("address {address} belongs to pod {holder}")]
    Taken {
        /// The address.
        address: IpAddr,
        /// The pod that has it.
        holder: String,
    },
    /// The address asked for can't be a pod's.
    #[error("address {address} can't be given to a pod: {reason}")]
    Unusable {
        /// The address.
        address: IpAddr,
        /// The reason.
        reason: &'static str,
    },
    /// More than one address of a family was asked for.
    #[error("a pod has at most one address of each family; {first} and {second} were asked for")]
    SameFamily {
        /// One of them.
        first: IpAddr,
        /// The other.
        second: IpAddr,
    },
}

/// A range that pods' addresses come from.
#[derive(Debug, Clone)]
struct Pool {
    range: IpNet,
    last: u64,
}

/// All addresses in use.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    pools: Vec<Pool>,
    used: HashMap<IpAddr, String>,
}

impl Addresses {
    /// Sets the ranges new addresses come from; those in use stay in use.
    pub(crate) fn set_ranges(&mut self, ranges: &[IpNet]) {
        let used = &self.used;
        let pool = |range: &IpNet| {
            let last = used.keys().filter_map(|ip| range.offset_of(*ip)).max();
            Pool {
                range: *range,
                last: last.unwrap_or(1),
            }
        };
        self.pools = ranges.iter().map(pool).collect();
    }

    pub(crate) fn ranges(&self) -> Vec<IpNet> {
        self.pools.iter().map(|pool| pool.range).collect()
    }

    /// Marks addresses as a pod's, as told by its lease.
    pub(crate) fn restore(&mut self, pod_id: &str, ips: &[IpAddr]) {
        for ip in ips {
            if let Some(other) = self.used.insert(*ip, pod_id.to_owned()) {
                tracing::error!(%ip, pod_id, other, "two leases hold one address");
            }
        }
    }

    /// Gives a pod one address of each range, or those asked for. All or none.
    pub(crate) fn take(
        &mut self,
        pod_id: &str,
        asked: &[IpAddr],
    ) -> Result<Vec<IpAddr>, AddressError> {
        let mut given = Vec::new();
        for address in asked {
            let same = given
                .iter()
                .find(|other: &&IpAddr| other.is_ipv6() == address.is_ipv6());
            if let Some(first) = same {
                return Err(AddressError::SameFamily {
                    first: *first,
                    second: *address,
                });
            }
            self.usable(pod_id, *address)?;
            given.push(*address);
        }
        for at in 0..self.pools.len() {
            let is_ipv6 = self.pools[at].range.is_ipv6();
            if given.iter().all(|other| other.is_ipv6() != is_ipv6) {
                given.push(self.next(at)?);
            }
        }
        for ip in &given {
            self.used.insert(*ip, pod_id.to_owned());
        }
        Ok(given)
    }

    /// Gives addresses back; those of other pods are left alone.
    pub(crate) fn give_back(&mut self, pod_id: &str, ips: &[IpAddr]) {
        for ip in ips {
            if self.used.get(ip).is_some_and(|holder| holder == pod_id) {
                self.used.remove(ip);
            }
        }
    }

    fn usable(&self, pod_id: &str, address: IpAddr) -> Result<(), AddressError> {
        let unusable = |reason| Err(AddressError::Unusable { address, reason });
        if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
            return unusable("it is no unicast address");
        }
        if !self
            .pools
            .iter()
            .any(|pool| pool.range.is_ipv6() == address.is_ipv6())
        {
            return unusable("the node has no range of its family");
        }
        for pool in &self.pools {
            match pool.range.offset_of(address) {
                Some(0) => return unusable("it is the first of its range"),
                Some(1) => return unusable("it is the gateway of its range"),
                Some(offset) if !address.is_ipv6() && offset > pool.range.last_offset() => {
                    return unusable("it is the broadcast address of its range");
                }
                _ => {}
            }
        }
        match self.used.get(&address) {
            Some(holder) if holder != pod_id => Err(AddressError::Taken {
                address,
                holder: holder.clone(),
            }),
            _ => Ok(()),
        }
    }

    fn next(&mut self, at: usize) -> Result<IpAddr, AddressError> {
        let pool = &mut self.pools[at];
        let last = pool.range.last_offset();
        // Among one more than are in use, one is free, if the range is that large.
        let tries = (self.used.len() as u64 + 1).min(last.saturating_sub(1));
        for _ in 0..tries {
            pool.last = if pool.last >= last {
                2
            } else {
                (pool.last + 1).max(2)
            };
            if let Some(ip) = pool.range.nth(pool.last)
                && !self.used.contains_key(&ip)
            {
                return Ok(ip);
            }
        }
        let used = self
            .used
            .keys()
            .filter(|ip| pool.range.contains(**ip))
            .count();
        Err(AddressError::Exhausted {
            range: pool.range,
            used,
        })
    }
}

/// The node's own address in a range.
pub(crate) fn gateway(range: IpNet) -> Option<IpAddr> {
    range.nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(ranges: &[&str]) -> Addresses {
        let mut addresses = Addresses::default();
        let ranges: Vec<IpNet> = ranges.iter().map(|range| range.parse().unwrap()).collect();
        addresses.set_ranges(&ranges);
        addresses
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_handed_out_in_turn() {
        let mut all = addresses(&["10.0.0.0/29"]);
        assert_eq!(all.take("a", &[]).unwrap(), [ip("10.0.0.2")]);
        assert_eq!(all.take("b", &[]).unwrap(), [ip("10.0.0.3")]);
        all.give_back("a", &[ip("10.0.0.2")]);
        assert_eq!(all.take("c", &[]).unwrap(), [ip("10.0.0.4")]);
        all.take("d", &[]).unwrap();
        all.take("e", &[]).unwrap();
        assert_eq!(all.take("f", &[]).unwrap(), [ip("10.0.0.2")]);
        let full = all.take("g", &[]).unwrap_err();
        assert_eq!(
            full,
            AddressError::Exhausted {
                range: "10.0.0.0/29".parse().unwrap(),
                used: 5
            }
        );
    }

    #[test]
    fn one_address_of_each_family() {
        let mut all = addresses(&["10.0.0.0/24", "fd00::/64"]);
        assert_eq!(all.take("a", &[]).unwrap(), [ip("10.0.0.2"), ip("fd00::2")]);
        let fixed = all.take("b", &[ip("fd00::9")]).unwrap();
        assert_eq!(fixed, [ip("fd00::9"), ip("10.0.0.3")]);
        let two = all
            .take("c", &[ip("10.0.0.8"), ip("10.0.0.9")])
            .unwrap_err();
        assert!(matches!(two, AddressError::SameFamily { .. }));
    }

    #[test]
    fn fixed_addresses_are_checked_and_exclusive() {
        let mut all = addresses(&["10.0.0.0/24"]);
        all.take("a", &[ip("10.0.0.7")]).unwrap();
        all.take("a", &[ip("10.0.0.7")]).unwrap();
        let taken = all.take("b", &[ip("10.0.0.7")]).unwrap_err();
        assert_eq!(
            taken,
            AddressError::Taken {
                address: ip("10.0.0.7"),
                holder: "a".to_owned()
            }
        );
        for bad in [
            "10.0.0.0",
            "10.0.0.1",
            "10.0.0.255",
            "127.0.0.1",
            "224.0.0.1",
            "0.0.0.0",
        ] {
            let refused = all.take("b", &[ip(bad)]).unwrap_err();
            assert!(matches!(refused, AddressError::Unusable { .. }), "{bad}");
        }
        all.give_back("b", &[ip("10.0.0.7")]);
        all.take("b", &[ip("10.0.0.7")])
            .expect_err("only its holder gives it back");
    }

    #[test]
    fn a_failed_take_takes_nothing() {
        let mut all = addresses(&["10.0.0.0/30", "fd00::/64"]);
        all.take("a", &[]).unwrap();
        all.take("b", &[]).unwrap_err();
        assert_eq!(all.used.len(), 2);
    }

    #[test]
    fn restored_addresses_are_not_given_again() {
        let mut all = Addresses::default();
        all.restore("old", &[ip("10.0.0.2"), ip("10.0.0.3")]);
        all.set_ranges(&["10.0.0.0/24".parse().unwrap()]);
        assert_eq!(all.take("new", &[]).unwrap(), [ip("10.0.0.4")]);
    }
}
