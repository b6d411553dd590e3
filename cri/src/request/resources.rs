//! `LinuxContainerResources`.

use joey_cgroup::Resources;
use joey_proto::cri;

use crate::status::{Result, invalid};

/// Zero and empty mean "not given" throughout.
pub(crate) fn resources(given: &cri::LinuxContainerResources) -> Result<Resources> {
    let mut hugepage_limits = Vec::new();
    for limit in &given.hugepage_limits {
        hugepage_limits.push((page_size(&limit.page_size)?, limit.limit));
    }
    Ok(Resources {
        cpu_period: unsigned(given.cpu_period, "cpu_period")?,
        cpu_quota: limit(given.cpu_quota, "cpu_quota")?,
        cpu_shares: unsigned(given.cpu_shares, "cpu_shares")?,
        cpuset_cpus: text(&given.cpuset_cpus),
        cpuset_mems: text(&given.cpuset_mems),
        memory_limit: limit(given.memory_limit_in_bytes, "memory_limit_in_bytes")?,
        memory_swap: limit(
            given.memory_swap_limit_in_bytes,
            "memory_swap_limit_in_bytes",
        )?,
        hugepage_limits,
        unified: given.unified.clone().into_iter().collect(),
        ..Resources::default()
    })
}

/// The one field of resources that is not a cgroup's. Zero is a value of its own here: the kubelet
/// always sends one.
pub(crate) fn oom_score_adj(given: &cri::LinuxContainerResources) -> Result<i32> {
    i32::try_from(given.oom_score_adj)
        .ok()
        .filter(|value| (-1000..=1000).contains(value))
        .ok_or_else(|| {
            invalid(format!(
                "oom_score_adj {} is not in -1000 … 1000",
                given.oom_score_adj
            ))
        })
}

fn unsigned(value: i64, name: &str) -> Result<Option<u64>> {
    let value = u64::try_from(value)
        .map_err(|_| invalid(format!("resources.{name} {value} is negative")))?;
    Ok(Some(value).filter(|value| *value != 0))
}

/// −1 removes a limit; nothing else is negative.
fn limit(value: i64, name: &str) -> Result<Option<i64>> {
    if value < -1 {
        return Err(invalid(format!("resources.{name} {value} is less than -1")));
    }
    Ok(Some(value).filter(|value| *value != 0))
}

fn text(value: &str) -> Option<String> {
    Some(value.to_owned()).filter(|value| !value.is_empty())
}

/// Digits and a unit, as in the names of the kernel's control files.
fn page_size(size: &str) -> Result<String> {
    let unit = size.trim_start_matches(|c: char| c.is_ascii_digit());
    if unit.len() == size.len() || !matches!(unit, "KB" | "MB" | "GB") {
        return Err(invalid(format!(
            "hugepage_limits: {size:?} is no page size such as 2MB"
        )));
    }
    Ok(size.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_field() -> cri::LinuxContainerResources {
        cri::LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: -1,
            cpu_shares: 1024,
            memory_limit_in_bytes: 64 << 20,
            oom_score_adj: -998,
            cpuset_cpus: "0-1".into(),
            cpuset_mems: "0".into(),
            hugepage_limits: vec![cri::HugepageLimit {
                page_size: "2MB".into(),
                limit: 4 << 20,
            }],
            unified: [("memory.high".to_owned(), "1000".to_owned())].into(),
            memory_swap_limit_in_bytes: 128 << 20,
        }
    }

    #[test]
    fn every_field_is_mapped() {
        let mapped = resources(&every_field()).unwrap();
        assert_eq!(
            mapped,
            Resources {
                cpu_period: Some(100_000),
                cpu_quota: Some(-1),
                cpu_shares: Some(1024),
                cpuset_cpus: Some("0-1".into()),
                cpuset_mems: Some("0".into()),
                memory_limit: Some(64 << 20),
                memory_swap: Some(128 << 20),
                hugepage_limits: vec![("2MB".into(), 4 << 20)],
                unified: [("memory.high".to_owned(), "1000".to_owned())].into(),
                ..Resources::default()
            }
        );
        assert_eq!(oom_score_adj(&every_field()).unwrap(), -998);
        assert_eq!(crate::reply::resources(&mapped, Some(-998)), every_field());
    }

    #[test]
    fn nothing_given_is_nothing_set() {
        let none = cri::LinuxContainerResources::default();
        assert_eq!(resources(&none).unwrap(), Resources::default());
        assert_eq!(crate::reply::resources(&Resources::default(), None), none);
    }

    #[test]
    fn impossible_values_are_refused() {
        let refused: [fn(&mut cri::LinuxContainerResources); 6] = [
            |r| r.cpu_period = -1,
            |r| r.cpu_quota = -2,
            |r| r.cpu_shares = -1,
            |r| r.memory_limit_in_bytes = -2,
            |r| r.memory_swap_limit_in_bytes = -5,
            |r| r.hugepage_limits[0].page_size = "2 cats".into(),
        ];
        for change in refused {
            let mut given = every_field();
            change(&mut given);
            assert!(resources(&given).is_err(), "{given:?}");
        }
        for adj in [-1001, 1001, i64::MAX] {
            let given = cri::LinuxContainerResources {
                oom_score_adj: adj,
                ..every_field()
            };
            oom_score_adj(&given).unwrap_err();
        }
    }
}
