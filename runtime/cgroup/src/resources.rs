//! Limits of a group, in the terms of CRI and of the OCI runtime specification.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Limits of a group. `None` (or an empty list) leaves what is in force unchanged.
///
/// Zero means "not given" for `cpu_period`, `cpu_quota`, `cpu_shares`, `memory_limit`,
/// `memory_swap`, `memory_reservation` and `pids_limit`, as CRI has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// µs.
    pub cpu_period: Option<u64>,
    /// µs of CPU time per period; −1 removes the limit.
    pub cpu_quota: Option<i64>,
    /// 2 … 262,144, 1,024 being usual; becomes a weight on v2.
    pub cpu_shares: Option<u64>,
    /// µs that may be saved up over idle periods.
    pub cpu_burst: Option<u64>,
    /// SCHED_IDLE for the whole group.
    pub cpu_idle: Option<bool>,
    /// A list as `0-3,6`.
    pub cpuset_cpus: Option<String>,
    /// A list as `0-1`.
    pub cpuset_mems: Option<String>,
    /// Bytes; −1 removes the limit.
    pub memory_limit: Option<i64>,
    /// Bytes of memory and swap together, as v1 counts them; −1 removes the limit.
    pub memory_swap: Option<i64>,
    /// Bytes: v1's soft limit, v2's `memory.low`; −1 removes it.
    pub memory_reservation: Option<i64>,
    /// Without a `memory_swap`: no swap at all, or (false) as much as there is.
    pub no_swap: Option<bool>,
    /// 0 … 100; v1 only (v2 has no such setting per group).
    pub swappiness: Option<u64>,
    /// Tasks; −1 removes the limit.
    pub pids_limit: Option<i64>,
    /// Page size as the kernel writes it (`2MB`, `1GB`), bytes.
    pub hugepage_limits: Vec<(String, u64)>,
    /// v2 file name and its content (`memory.high` → `1073741824`); refused on v1.
    pub unified: BTreeMap<String, String>,
    /// 10 … 1,000; the share of disk time.
    pub blkio_weight: Option<u16>,
    /// The same for one device.
    pub blkio_weight_devices: Vec<BlkioWeight>,
    /// Upper limits of disk traffic.
    pub blkio_throttles: Vec<Throttle>,
    /// In order, the last rule that matches decides; what no rule matches is denied.
    pub devices: Option<Vec<DeviceRule>>,
}

/// The share of one device's time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlkioWeight {
    /// Device number.
    pub major: u32,
    /// Device number.
    pub minor: u32,
    /// 10 … 1,000.
    pub weight: u16,
}

/// What a [`Throttle`] limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ThrottleKind {
    /// Bytes read per second.
    ReadBps,
    /// Bytes written per second.
    WriteBps,
    /// Reads per second.
    ReadIops,
    /// Writes per second.
    WriteIops,
}

/// An upper limit of one device's traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    /// Device number.
    pub major: u32,
    /// Device number.
    pub minor: u32,
    /// What is limited.
    pub kind: ThrottleKind,
    /// Per second; 0 removes the limit.
    pub rate: u64,
}

/// Which devices a [`DeviceRule`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Every device.
    All,
    /// Block devices.
    Block,
    /// Character devices.
    Char,
}

/// Allows or denies the use of device nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Allowed, else denied.
    pub allow: bool,
    /// Which devices.
    pub kind: DeviceKind,
    /// None: every one.
    pub major: Option<u32>,
    /// None: every one.
    pub minor: Option<u32>,
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// Nodes may be made.
    pub mknod: bool,
}

impl DeviceRule {
    /// Every access to every device.
    #[must_use]
    pub fn allow_all() -> Self {
        Self::new(true, DeviceKind::All, None, None, "rwm")
    }

    /// `access` holds the letters `r`, `w` and `m`; others are ignored.
    #[must_use]
    pub fn new(
        allow: bool,
        kind: DeviceKind,
        major: Option<u32>,
        minor: Option<u32>,
        access: &str,
    ) -> Self {
        Self {
            allow,
            kind,
            major,
            minor,
            read: access.contains('r'),
            write: access.contains('w'),
            mknod: access.contains('m'),
        }
    }

    /// Whether the rule speaks about every access to every device.
    pub(crate) fn is_total(&self) -> bool {
        self.kind == DeviceKind::All && self.read && self.write && self.mknod
    }

    /// `r`, `w` and `m` as far as set.
    pub(crate) fn access(&self) -> String {
        [(self.read, 'r'), (self.write, 'w'), (self.mknod, 'm')]
            .into_iter()
            .filter_map(|(set, letter)| set.then_some(letter))
            .collect()
    }
}

impl fmt::Display for DeviceRule {
    /// As `devices.allow` of v1 reads it: `c 1:3 rwm`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            DeviceKind::All => 'a',
            DeviceKind::Block => 'b',
            DeviceKind::Char => 'c',
        };
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        write!(
            f,
            "{kind} {}:{} {}",
            number(self.major),
            number(self.minor),
            self.access()
        )
    }
}

/// What every unprivileged container may use: nodes may be made, and null, zero, full, random,
/// urandom, tty, ptmx and pseudo-terminals opened.
#[must_use]
pub fn default_devices() -> Vec<DeviceRule> {
    let mut rules = vec![
        DeviceRule::new(true, DeviceKind::Char, None, None, "m"),
        DeviceRule::new(true, DeviceKind::Block, None, None, "m"),
    ];
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)] {
        rules.push(DeviceRule::new(
            true,
            DeviceKind::Char,
            Some(major),
            Some(minor),
            "rwm",
        ));
    }
    rules.push(DeviceRule::new(
        true,
        DeviceKind::Char,
        Some(136),
        None,
        "rwm",
    ));
    rules
}

impl Resources {
    /// The weight that v2 gives for `cpu_shares`, by the formula that maps 2, 1,024 and 262,144 to
    /// 1, 100 and 10,000, so that a container beside the kubelet's own groups gets its due.
    pub(crate) fn cpu_weight(&self) -> Option<u64> {
        given(self.cpu_shares).map(weight_of_shares)
    }

    /// `memory.swap.max` of v2: swap alone, `None` for "max".
    pub(crate) fn swap_alone(&self) -> Option<Option<u64>> {
        let Some(total) = given(self.memory_swap) else {
            return self.no_swap.map(|none| none.then_some(0));
        };
        let limit = given(self.memory_limit).unwrap_or(0);
        if total < 0 {
            return Some(None);
        }
        if limit < 0 {
            return Some(None);
        }
        Some(Some(u64::try_from(total - limit).unwrap_or(0)))
    }
}

/// CRI says 0 for "not given".
pub(crate) fn given<N: Default + PartialEq>(value: Option<N>) -> Option<N> {
    value.filter(|n| *n != N::default())
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "shares are at most 2^18 here and the result lies between 1 and 10,000"
)]
pub(crate) fn weight_of_shares(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    10f64.powf(exponent).ceil() as u64
}

/// The shares that [`weight_of_shares`] turns into `weight`; the smallest where several do.
pub(crate) fn shares_of_weight(weight: u64) -> u64 {
    let (mut low, mut high) = (2u64, 262_144u64);
    while low < high {
        let middle = u64::midpoint(low, high);
        if weight_of_shares(middle) < weight {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_the_weights_the_kubelet_uses() {
        for (shares, weight) in [(2, 1), (1024, 100), (262_144, 10_000), (100, 17), (512, 59)] {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
    }

    #[test]
    fn a_weight_is_turned_back_into_shares_of_the_same_weight() {
        for weight in [1, 17, 59, 100, 1000, 10_000] {
            assert_eq!(weight_of_shares(shares_of_weight(weight)), weight);
        }
    }

    #[test]
    fn swap_alone_is_the_total_without_memory() {
        let swap = |limit, total| {
            Resources {
                memory_limit: limit,
                memory_swap: total,
                ..Resources::default()
            }
            .swap_alone()
        };
        assert_eq!(swap(Some(100), Some(100)), Some(Some(0)));
        assert_eq!(swap(Some(100), Some(150)), Some(Some(50)));
        assert_eq!(swap(Some(100), Some(-1)), Some(None));
        assert_eq!(swap(Some(-1), Some(-1)), Some(None));
        assert_eq!(swap(Some(100), None), None);
        assert_eq!(swap(Some(100), Some(0)), None);
        let without_limit = |no_swap| {
            Resources {
                no_swap,
                ..Resources::default()
            }
            .swap_alone()
        };
        assert_eq!(without_limit(Some(true)), Some(Some(0)));
        assert_eq!(without_limit(Some(false)), Some(None));
    }

    #[test]
    fn device_rules_read_as_the_kernel_writes_them() {
        assert_eq!(DeviceRule::allow_all().to_string(), "a *:* rwm");
        let rule = DeviceRule::new(false, DeviceKind::Char, Some(10), None, "rw");
        assert_eq!(rule.to_string(), "c 10:* rw");
    }
}
