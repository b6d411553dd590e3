//! Names and hardware addresses of pods' interfaces.

use std::net::IpAddr;

use super::attach::BuiltinAttachError;
use super::rules;
use crate::netlink::route::Mac;

/// Name of a pod's interface on the host: 48 bits of a hash of its id.
pub(super) fn link_name(pod_id: &str) -> String {
    let hash = pod_id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!(
        "{}{:012x}",
        rules::LINK_PREFIX,
        (hash ^ (hash >> 16)) & 0xffff_ffff_ffff
    )
}

/// True for names [`link_name`] makes.
pub(super) fn is_pod_link(name: &str) -> bool {
    name.strip_prefix(rules::LINK_PREFIX)
        .is_some_and(|rest| rest.len() == 12 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A hardware address that follows from the pod's first address.
pub(super) fn mac_of(ips: &[IpAddr]) -> Mac {
    let mut mac = [0x0a, 0x58, 0, 0, 0, 0];
    let tail = match ips.first() {
        Some(IpAddr::V4(v4)) => v4.octets(),
        Some(IpAddr::V6(v6)) => {
            let octets = v6.octets();
            [octets[12], octets[13], octets[14], octets[15]]
        }
        None => [0; 4],
    };
    mac[2..].copy_from_slice(&tail);
    mac
}

pub(super) fn format_mac(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

pub(super) fn parse_mac(text: &str) -> Result<Mac, BuiltinAttachError> {
    let hex = |byte: u8| byte.is_ascii_hexdigit();
    let parse = || {
        let mut mac = Mac::default();
        let mut parts = text.split([':', '-']);
        for byte in &mut mac {
            let part = parts
                .next()
                .filter(|part| part.len() == 2 && part.bytes().all(hex))?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        let unicast = mac[0] & 1 == 0 && mac != Mac::default();
        (parts.next().is_none() && unicast).then_some(mac)
    };
    parse().ok_or_else(|| BuiltinAttachError::Mac(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_fit_and_are_told_apart() {
        let (a, b) = (link_name("pod-a"), link_name("pod-b"));
        assert_ne!(a, b);
        assert!(a.len() < libc::IFNAMSIZ);
        assert!(is_pod_link(&a));
        assert!(!is_pod_link("jybridge"));
        assert!(!is_pod_link("joey0"));
    }

    #[test]
    fn hardware_addresses_are_checked() {
        assert_eq!(
            parse_mac("0a:58:0A:58:00:02").unwrap(),
            [10, 0x58, 10, 0x58, 0, 2]
        );
        assert_eq!(format_mac([10, 0x58, 10, 0x58, 0, 2]), "0a:58:0a:58:00:02");
        for bad in [
            "",
            "0a:58",
            "0a:58:0a:58:00:02:03",
            "01:00:5e:00:00:01",
            "+a:58:0a:58:00:02",
            "00:00:00:00:00:00",
            "zz:58:0a:58:00:02",
        ] {
            assert!(parse_mac(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_hardware_address_follows_the_address() {
        assert_eq!(
            mac_of(&["10.88.0.2".parse().unwrap()]),
            [10, 0x58, 10, 88, 0, 2]
        );
    }
}
