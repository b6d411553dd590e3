//! Limits as properties of systemd units.
//!
//! Files alone would do until `systemctl daemon-reload`, which writes the units' own values again.

use zbus::zvariant::Value;

use crate::layout::Version;
use crate::resources::{DeviceKind, DeviceRule, Resources, given};
use crate::v2::io_weight;

/// A property and its value.
pub(crate) type Property = (String, Value<'static>);

/// "No limit" of every numeric property.
const INFINITY: u64 = u64::MAX;
const DEFAULT_PERIOD_US: u64 = 100_000;

pub(crate) fn properties(wanted: &Resources, version: Version) -> Vec<Property> {
    let v2 = version == Version::V2;
    let mut all = Properties(Vec::new());
    cpu(&mut all, wanted, v2);
    memory(&mut all, wanted, v2);
    if let Some(limit) = given(wanted.pids_limit) {
        all.set("TasksMax", limited(limit));
    }
    if let Some(weight) = given(wanted.blkio_weight) {
        if v2 {
            all.set("IOWeight", io_weight(weight));
        } else {
            all.set("BlockIOWeight", u64::from(weight));
        }
    }
    if v2 {
        for (key, value) in &wanted.unified {
            unified(&mut all, key, value);
        }
    } else if let Some(rules) = &wanted.devices {
        devices(&mut all, rules);
    }
    all.0
}

/// On v1 systemd writes the device list again, allowing all where it knows of no rules; on v2 our
/// program stands beside its own. What it has no words for (denials of single devices) stays in the
/// files alone.
fn devices(all: &mut Properties, rules: &[DeviceRule]) {
    let start = rules.iter().rposition(DeviceRule::is_total);
    let (total, rest) = match start {
        Some(at) => (rules[at].allow, &rules[at + 1..]),
        None => (false, rules),
    };
    let allowed: Vec<(String, String)> = rest
        .iter()
        .filter(|rule| rule.allow && !total)
        .filter_map(|rule| Some((device_pattern(rule)?, rule.access())))
        .collect();
    let forget_earlier: Vec<(String, String)> = Vec::new();
    all.0
        .push(("DeviceAllow".to_owned(), forget_earlier.into()));
    if !allowed.is_empty() {
        all.0.push(("DeviceAllow".to_owned(), allowed.into()));
    }
    all.set("DevicePolicy", if total { "auto" } else { "strict" });
}

/// As systemd.resource-control(5) names devices.
fn device_pattern(rule: &DeviceRule) -> Option<String> {
    let kind = match rule.kind {
        DeviceKind::Char => "char",
        DeviceKind::Block => "block",
        DeviceKind::All => return None,
    };
    match (rule.major, rule.minor) {
        (None, _) => Some(format!("{kind}-*")),
        (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
        (Some(major), None) => Some(format!("{kind}-{}", driver_name(kind, major)?)),
    }
}

/// From /proc/devices: lines of `136 pts` after a heading for each kind.
fn driver_name(kind: &str, major: u32) -> Option<String> {
    let text = std::fs::read_to_string("/proc/devices").ok()?;
    let (char_part, block_part) = text.split_once("Block devices:")?;
    let part = if kind == "char" {
        char_part
    } else {
        block_part
    };
    part.lines().find_map(|line| {
        let (number, name) = line.trim().split_once(' ')?;
        (number.parse() == Ok(major)).then(|| name.to_owned())
    })
}

struct Properties(Vec<Property>);

impl Properties {
    /// A later value of the same name wins, as with files.
    fn set(&mut self, name: &str, value: impl Into<Value<'static>>) {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), value.into()));
    }
}

fn limited(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(INFINITY)
}

fn cpu(all: &mut Properties, wanted: &Resources, v2: bool) {
    if v2 {
        if let Some(weight) = wanted.cpu_weight() {
            all.set("CPUWeight", weight);
        }
        for (list, name) in [
            (&wanted.cpuset_cpus, "AllowedCPUs"),
            (&wanted.cpuset_mems, "AllowedMemoryNodes"),
        ] {
            if let Some(mask) = list.as_deref().and_then(bit_mask) {
                all.set(name, mask);
            }
        }
    } else if let Some(shares) = given(wanted.cpu_shares) {
        all.set("CPUShares", shares);
    }
    let period = given(wanted.cpu_period);
    if let Some(period) = period {
        all.set("CPUQuotaPeriodUSec", period);
    }
    if let Some(quota) = given(wanted.cpu_quota) {
        let period = period.unwrap_or(DEFAULT_PERIOD_US);
        all.set("CPUQuotaPerSecUSec", quota_per_second(quota, period));
    }
}

/// systemd counts µs per second of time and keeps whole 10 ms, so round up to these.
fn quota_per_second(quota: i64, period: u64) -> u64 {
    let Ok(quota) = u64::try_from(quota) else {
        return INFINITY;
    };
    let per_second = quota.saturating_mul(1_000_000) / period.max(1);
    per_second.div_ceil(10_000).saturating_mul(10_000)
}

fn memory(all: &mut Properties, wanted: &Resources, v2: bool) {
    let limit = given(wanted.memory_limit).map(limited);
    if !v2 {
        if let Some(limit) = limit {
            all.set("MemoryLimit", limit);
        }
        return;
    }
    if let Some(limit) = limit {
        all.set("MemoryMax", limit);
    }
    if let Some(swap) = wanted.swap_alone() {
        all.set("MemorySwapMax", swap.unwrap_or(INFINITY));
    }
    if let Some(low) = given(wanted.memory_reservation) {
        all.set("MemoryLow", limited(low));
    }
}

/// The keys that have a property; the files of the others are left alone by systemd.
fn unified(all: &mut Properties, key: &str, value: &str) {
    let number = || match value.trim() {
        "max" => Some(INFINITY),
        digits => digits.parse::<u64>().ok(),
    };
    let name = match key {
        "memory.high" => "MemoryHigh",
        "memory.max" => "MemoryMax",
        "memory.min" => "MemoryMin",
        "memory.low" => "MemoryLow",
        "memory.swap.max" => "MemorySwapMax",
        "pids.max" => "TasksMax",
        "cpu.weight" => "CPUWeight",
        "cpu.max" => return unified_cpu_max(all, value),
        "cpuset.cpus" | "cpuset.mems" => {
            let name = if key == "cpuset.cpus" {
                "AllowedCPUs"
            } else {
                "AllowedMemoryNodes"
            };
            if let Some(mask) = bit_mask(value) {
                all.set(name, mask);
            }
            return;
        }
        _ => return,
    };
    if let Some(number) = number() {
        all.set(name, number);
    }
}

fn unified_cpu_max(all: &mut Properties, value: &str) {
    let mut parts = value.split_whitespace();
    let quota = parts.next().unwrap_or("max");
    let period = parts.next().and_then(|p| p.parse().ok());
    let period = period.unwrap_or(DEFAULT_PERIOD_US);
    let quota = quota.parse().unwrap_or(-1);
    all.set("CPUQuotaPeriodUSec", period);
    all.set("CPUQuotaPerSecUSec", quota_per_second(quota, period));
}

/// `0-2,9` as a little-endian bit mask; None where it can't be one.
fn bit_mask(list: &str) -> Option<Vec<u8>> {
    const MOST: usize = 8192;
    let mut mask = Vec::new();
    for range in list.trim().split(',').filter(|r| !r.is_empty()) {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to): (usize, usize) = (from.parse().ok()?, to.parse().ok()?);
        if from > to || to >= MOST {
            return None;
        }
        if mask.len() <= to / 8 {
            mask.resize(to / 8 + 1, 0u8);
        }
        for bit in from..=to {
            mask[bit / 8] |= 1 << (bit % 8);
        }
    }
    (!mask.is_empty()).then_some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(wanted: &Resources, version: Version) -> Vec<(String, String)> {
        properties(wanted, version)
            .into_iter()
            .map(|(name, value)| (name, value.to_string()))
            .collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn limits_become_properties_of_each_version() {
        let wanted = Resources {
            cpu_period: Some(100_000),
            cpu_quota: Some(12_345),
            cpu_shares: Some(1024),
            memory_limit: Some(100),
            memory_swap: Some(100),
            pids_limit: Some(-1),
            ..Resources::default()
        };
        let v2 = of(&wanted, Version::V2);
        assert!(v2.contains(&pair("CPUWeight", "uint64 100")), "{v2:?}");
        assert!(v2.contains(&pair("CPUQuotaPerSecUSec", "uint64 130000")));
        assert!(v2.contains(&pair("MemorySwapMax", "uint64 0")));
        assert!(v2.contains(&pair("TasksMax", "uint64 18446744073709551615")));
        let v1 = of(&wanted, Version::V1);
        assert!(v1.contains(&pair("CPUShares", "uint64 1024")));
        assert!(v1.contains(&pair("MemoryLimit", "uint64 100")));
        assert!(!v1.iter().any(|(name, _)| name.contains("Swap")));
    }

    #[test]
    fn unified_wins_over_what_cri_says() {
        let wanted = Resources {
            memory_limit: Some(100),
            unified: [
                ("memory.max".to_owned(), "50".to_owned()),
                ("memory.oom.group".to_owned(), "1".to_owned()),
            ]
            .into(),
            ..Resources::default()
        };
        assert_eq!(of(&wanted, Version::V2), [pair("MemoryMax", "uint64 50")]);
    }

    #[test]
    fn device_rules_are_properties_on_v1_only() {
        let wanted = Resources {
            devices: Some(crate::resources::default_devices()),
            ..Resources::default()
        };
        assert_eq!(of(&wanted, Version::V2), []);
        let v1 = of(&wanted, Version::Hybrid);
        assert!(v1.contains(&pair("DevicePolicy", "\"strict\"")), "{v1:?}");
        assert!(v1[1].1.contains(r#"("/dev/char/1:3", "rwm")"#), "{v1:?}");
        assert!(v1[1].1.contains(r#"("char-*", "m")"#), "{v1:?}");
        let wanted = Resources {
            devices: Some(vec![DeviceRule::allow_all()]),
            ..Resources::default()
        };
        assert!(of(&wanted, Version::V1).contains(&pair("DevicePolicy", "\"auto\"")));
    }

    #[test]
    fn lists_become_bit_masks() {
        assert_eq!(bit_mask("0-2,9"), Some(vec![0b111, 0b10]));
        for bad in ["", "3-1", "a", "99999"] {
            assert_eq!(bit_mask(bad), None, "{bad}");
        }
    }
}
