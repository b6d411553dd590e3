//! Limits as the `joey` command asks for them: 0 is no limit, what is not given is not touched.

use joey_cgroup::{BlkioWeight, DeviceKind, DeviceRule, Resources, Throttle, ThrottleKind};
use joey_proto::api::{DeviceThrottle, Limits, device_throttle};
use rustix::fs::FileType;

use super::status::Failure;

const CPU_PERIOD: u64 = 100_000; // µs
const NANOS_PER_CPU: i64 = 1_000_000_000;
/// The least quota that the kernel takes, µs.
const MIN_QUOTA: i64 = 1000;
/// The least limit the kernel can start a process in.
const MIN_MEMORY: i64 = 6 << 20;
const SHARES: std::ops::RangeInclusive<i64> = 2..=262_144;
/// What a group has that nobody gave shares or a weight.
const DEFAULT_SHARES: u64 = 1024;
const DEFAULT_WEIGHT: u16 = 100;
const WEIGHTS: std::ops::RangeInclusive<u32> = 10..=1000;
/// The kernel takes it for "no limit", in whole pages of any size.
const UNLIMITED_PAGES: u64 = i64::MAX.cast_unsigned() >> 30 << 30;

/// In the runtime's terms, where −1 is no limit.
pub fn resources(limits: &Limits) -> Result<Resources, Failure> {
    let (cpu_period, cpu_quota) = cpu_time(limits)?;
    let weight_devices = limits.blkio_weight_devices.iter().map(|device| {
        let (major, minor) = block_device(&device.path)?;
        let weight = weight(device.weight)?;
        Ok(BlkioWeight {
            major,
            minor,
            weight,
        })
    });
    let rules = limits.device_rules.iter().map(|rule| device_rule(rule));
    let rules = rules.collect::<Result<Vec<_>, Failure>>()?;
    let limit = bytes("memory", limits.memory)?;
    if let Some(bytes @ 0..MIN_MEMORY) = limit {
        return Err(Failure::Invalid(format!(
            "memory {bytes}: the least limit is 6 MiB"
        )));
    }
    Ok(Resources {
        cpu_period,
        cpu_quota,
        cpu_shares: limits.cpu_shares.map(shares).transpose()?,
        cpu_burst: limits.cpu_burst,
        cpuset_cpus: list("cpuset-cpus", limits.cpuset_cpus.as_ref())?,
        cpuset_mems: list("cpuset-mems", limits.cpuset_mems.as_ref())?,
        memory_limit: limit,
        memory_swap: bytes("memory-swap", limits.memory_swap)?,
        memory_reservation: bytes("memory-reservation", limits.memory_reservation)?,
        pids_limit: bytes("pids-limit", limits.pids_limit)?,
        blkio_weight: limits.blkio_weight.map(weight).transpose()?,
        blkio_weight_devices: weight_devices.collect::<Result<_, Failure>>()?,
        blkio_throttles: limits
            .throttles
            .iter()
            .map(throttle)
            .collect::<Result<_, _>>()?,
        hugepage_limits: limits
            .hugepages
            .iter()
            .map(|pages| match pages.limit {
                0 => (pages.page_size.clone(), UNLIMITED_PAGES),
                limit => (pages.page_size.clone(), limit),
            })
            .collect(),
        devices: (!rules.is_empty()).then_some(rules),
        ..Resources::default()
    })
}

fn cpu_time(limits: &Limits) -> Result<(Option<u64>, Option<i64>), Failure> {
    if let Some(nanos) = limits.nano_cpus {
        if limits.cpu_quota.is_some() || limits.cpu_period.is_some() {
            return Err(Failure::Invalid(
                "cpus is a quota and a period: give it or them".into(),
            ));
        }
        if nanos == 0 {
            return Ok((None, Some(-1)));
        }
        let quota = i128::from(nanos) * i128::from(CPU_PERIOD) / i128::from(NANOS_PER_CPU);
        let quota = i64::try_from(quota)
            .ok()
            .filter(|quota| *quota >= MIN_QUOTA);
        let quota =
            quota.ok_or_else(|| Failure::Invalid("cpus: the least limit is 0.01".into()))?;
        return Ok((Some(CPU_PERIOD), Some(quota)));
    }
    let period = limits.cpu_period.map(|period| match period {
        0 => CPU_PERIOD,
        given => given,
    });
    let quota = limits.cpu_quota.map(|quota| match quota {
        0 | -1 => Ok(-1),
        MIN_QUOTA.. => Ok(quota),
        _ => Err(Failure::Invalid(format!(
            "cpu-quota {quota}: the least limit is {MIN_QUOTA} µs"
        ))),
    });
    Ok((period, quota.transpose()?))
}

fn shares(shares: i64) -> Result<u64, Failure> {
    match u64::try_from(shares) {
        Ok(0) => Ok(DEFAULT_SHARES),
        Ok(given) if SHARES.contains(&shares) => Ok(given),
        _ => Err(Failure::Invalid(format!(
            "cpu-shares {shares} are not in 2 … 262144"
        ))),
    }
}

/// 0 and −1 are no limit.
fn bytes(what: &str, given: Option<i64>) -> Result<Option<i64>, Failure> {
    match given {
        Some(0 | -1) => Ok(Some(-1)),
        Some(..-1) => Err(Failure::Invalid(format!("{what} is negative"))),
        other => Ok(other),
    }
}

fn list(what: &str, given: Option<&String>) -> Result<Option<String>, Failure> {
    match given.map(String::as_str) {
        Some("") => Err(Failure::Invalid(format!("{what} is empty"))),
        other => Ok(other.map(str::to_owned)),
    }
}

fn weight(given: u32) -> Result<u16, Failure> {
    match u16::try_from(given) {
        Ok(0) => Ok(DEFAULT_WEIGHT),
        Ok(weight) if WEIGHTS.contains(&given) => Ok(weight),
        _ => Err(Failure::Invalid(format!(
            "blkio-weight {given} is not in 10 … 1000"
        ))),
    }
}

fn throttle(given: &DeviceThrottle) -> Result<Throttle, Failure> {
    use device_throttle::Kind;
    let (major, minor) = block_device(&given.path)?;
    let kind = match Kind::try_from(given.kind) {
        Ok(Kind::ReadBps) => ThrottleKind::ReadBps,
        Ok(Kind::WriteBps) => ThrottleKind::WriteBps,
        Ok(Kind::ReadIops) => ThrottleKind::ReadIops,
        Ok(Kind::WriteIops) => ThrottleKind::WriteIops,
        Err(unknown) => return Err(Failure::Invalid(format!("a throttle: {unknown}"))),
    };
    Ok(Throttle {
        major,
        minor,
        kind,
        rate: given.rate,
    })
}

fn block_device(path: &str) -> Result<(u32, u32), Failure> {
    let wrong = |why: String| Failure::Invalid(format!("device {path:?}: {why}"));
    let stat = rustix::fs::stat(path).map_err(|error| wrong(error.to_string()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::BlockDevice {
        return Err(wrong("not a block device".into()));
    }
    let device = stat.st_rdev;
    Ok((rustix::fs::major(device), rustix::fs::minor(device)))
}

/// As docker has it: `c 10:229 rwm`, `*` for any number; with `-` in front, denied.
fn device_rule(text: &str) -> Result<DeviceRule, Failure> {
    let wrong = || Failure::Invalid(format!("device rule {text:?} is not one as 'c 10:229 rwm'"));
    let (allow, rule) = match text.strip_prefix('-') {
        Some(rule) => (false, rule),
        None => (true, text),
    };
    let words: Vec<&str> = rule.split_whitespace().collect();
    let [kind, numbers, access] = words[..] else {
        return Err(wrong());
    };
    let kind = match kind {
        "a" => DeviceKind::All,
        "b" => DeviceKind::Block,
        "c" => DeviceKind::Char,
        _ => return Err(wrong()),
    };
    let number = |text: &str| match text {
        "*" => Ok(None),
        digits => digits.parse().map(Some).map_err(|_| wrong()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
    if access.is_empty() || !access.bytes().all(|letter| b"rwm".contains(&letter)) {
        return Err(wrong());
    }
    let (major, minor) = (number(major)?, number(minor)?);
    Ok(DeviceRule::new(allow, kind, major, minor, access))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_no_limit_and_what_is_not_given_stays() {
        let none = resources(&Limits::default()).unwrap();
        assert_eq!(none, Resources::default());
        let zero = resources(&Limits {
            memory: Some(0),
            nano_cpus: Some(0),
            cpu_shares: Some(0),
            pids_limit: Some(0),
            ..Limits::default()
        });
        let expected = Resources {
            memory_limit: Some(-1),
            cpu_quota: Some(-1),
            cpu_shares: Some(1024),
            pids_limit: Some(-1),
            ..Resources::default()
        };
        assert_eq!(zero.unwrap(), expected);
    }

    #[test]
    fn cpus_are_a_quota_and_a_period() {
        let limits = resources(&Limits {
            nano_cpus: Some(1_500_000_000),
            ..Limits::default()
        })
        .unwrap();
        assert_eq!(
            (limits.cpu_period, limits.cpu_quota),
            (Some(100_000), Some(150_000))
        );
    }

    #[test]
    fn what_can_not_be_is_refused_by_its_name() {
        type Change = fn(&mut Limits);
        let cases: [(Change, &str); 9] = [
            (|l| l.memory = Some(1), "memory"),
            (|l| l.memory = Some(-5), "memory"),
            (|l| l.nano_cpus = Some(1), "cpus"),
            (|l| l.cpu_quota = Some(5), "cpu-quota"),
            (
                |l| (l.nano_cpus, l.cpu_quota) = (Some(1 << 30), Some(5000)),
                "cpus",
            ),
            (|l| l.cpu_shares = Some(1), "cpu-shares"),
            (|l| l.cpuset_cpus = Some(String::new()), "cpuset-cpus"),
            (|l| l.blkio_weight = Some(5), "blkio-weight"),
            (|l| l.device_rules = vec!["c 10 rwm".into()], "c 10 rwm"),
        ];
        for (change, named) in cases {
            let mut limits = Limits::default();
            change(&mut limits);
            let error = resources(&limits).unwrap_err().to_string();
            assert!(error.contains(named), "{named}: {error}");
        }
        for device in ["/dev/null", "/no/such/device"] {
            let error = block_device(device).unwrap_err().to_string();
            assert!(error.contains(device), "{error}");
        }
    }

    #[test]
    fn device_rules_are_dockers() {
        let rule = device_rule("c 10:* rm").unwrap();
        assert_eq!(rule.to_string(), "c 10:* rm");
        assert!(rule.allow && !device_rule("-b *:* w").unwrap().allow);
        for wrong in ["", "c", "d 1:1 r", "c 1:1 x", "c a:1 r", "c 1:1 r r"] {
            assert!(device_rule(wrong).is_err(), "{wrong}");
        }
    }
}
