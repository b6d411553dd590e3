//! Address ranges in CIDR form.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A range of addresses: a network address and its prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IpNet {
    network: IpAddr,
    prefix: u8,
}

/// A text that is no CIDR range.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not an address range such as 10.88.0.0/16 or fd00:88::/64")]
pub struct ParseIpNetError(String);

impl IpNet {
    /// The range with `address` in it; bits behind the prefix are cleared. None if `prefix` is
    /// longer than the address.
    #[must_use]
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let network = match address {
            IpAddr::V4(v4) if prefix <= 32 => {
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask4(prefix)))
            }
            IpAddr::V6(v6) if prefix <= 128 => {
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask6(prefix)))
            }
            _ => return None,
        };
        Some(Self { network, prefix })
    }

    /// The first address.
    #[must_use]
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// Bits that all addresses of the range share.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// True for an IPv6 range.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.network.is_ipv6()
    }

    /// True if `address` lies in the range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        Self::new(address, self.prefix).is_some_and(|net| net.network == self.network)
    }

    /// True if the two ranges share an address.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        if self.prefix <= other.prefix {
            self.contains(other.network)
        } else {
            other.contains(self.network)
        }
    }

    /// The mask as bytes in network order: 4 for IPv4, 16 for IPv6.
    #[must_use]
    pub(crate) fn mask_bytes(&self) -> Vec<u8> {
        match self.network {
            IpAddr::V4(_) => mask4(self.prefix).to_be_bytes().to_vec(),
            IpAddr::V6(_) => mask6(self.prefix).to_be_bytes().to_vec(),
        }
    }

    /// The address `offset` behind the first; None outside the range.
    #[must_use]
    pub(crate) fn nth(&self, offset: u64) -> Option<IpAddr> {
        let address = match self.network {
            IpAddr::V4(v4) => {
                let bits = v4.to_bits().checked_add(u32::try_from(offset).ok()?)?;
                IpAddr::V4(Ipv4Addr::from_bits(bits))
            }
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(
                v6.to_bits().checked_add(offset.into())?,
            )),
        };
        self.contains(address).then_some(address)
    }

    /// How far `address` lies behind the first; None outside the range or beyond 64 bits.
    #[must_use]
    pub(crate) fn offset_of(&self, address: IpAddr) -> Option<u64> {
        if !self.contains(address) {
            return None;
        }
        match (address, self.network) {
            (IpAddr::V4(a), IpAddr::V4(n)) => Some(u64::from(a.to_bits() - n.to_bits())),
            (IpAddr::V6(a), IpAddr::V6(n)) => u64::try_from(a.to_bits() - n.to_bits()).ok(),
            _ => None,
        }
    }

    /// The last offset that may be handed out: without the broadcast address of IPv4, and at most
    /// 2^32 - 1 addresses of IPv6, so that the search stays bounded.
    #[must_use]
    pub(crate) fn last_offset(&self) -> u64 {
        match self.network {
            IpAddr::V4(_) => match self.prefix {
                32 => 0,
                31 => 1,
                prefix => (1_u64 << (32 - prefix)) - 2,
            },
            IpAddr::V6(_) => {
                let bits = (128 - u32::from(self.prefix)).min(32);
                (1_u64 << bits) - 1
            }
        }
    }
}

fn mask4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

fn mask6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for IpNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for IpNet {
    type Err = ParseIpNetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (address, prefix) = text.trim().split_once('/')?;
            Self::new(address.parse().ok()?, prefix.parse().ok()?)
        };
        parse().ok_or_else(|| ParseIpNetError(text.to_owned()))
    }
}

impl Serialize for IpNet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IpNet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn parses_clears_host_bits_and_prints() {
        assert_eq!(net("10.88.3.4/16").to_string(), "10.88.0.0/16");
        assert_eq!(net("fd00:88::7/64").to_string(), "fd00:88::/64");
        assert_eq!(net("0.0.0.0/0").to_string(), "0.0.0.0/0");
        for bad in ["10.0.0.0", "10.0.0.0/33", "x/8", "fd00::/129", "/8", ""] {
            assert!(bad.parse::<IpNet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn offsets_stay_inside() {
        let small = net("10.0.0.8/30");
        assert_eq!(small.nth(2), Some("10.0.0.10".parse().unwrap()));
        assert_eq!(small.nth(4), None);
        assert_eq!(small.last_offset(), 2);
        assert_eq!(small.offset_of("10.0.0.9".parse().unwrap()), Some(1));
        assert_eq!(small.offset_of("10.0.0.12".parse().unwrap()), None);
        assert_eq!(net("255.255.255.252/30").nth(9), None);
        assert_eq!(net("fd00::/64").last_offset(), u64::from(u32::MAX));
    }

    #[test]
    fn overlap_is_symmetric() {
        assert!(net("10.88.0.0/16").overlaps(&net("10.88.7.0/24")));
        assert!(net("10.88.7.0/24").overlaps(&net("10.88.0.0/16")));
        assert!(!net("10.88.0.0/16").overlaps(&net("10.89.0.0/16")));
        assert!(!net("10.88.0.0/16").overlaps(&net("fd00::/8")));
    }
}
