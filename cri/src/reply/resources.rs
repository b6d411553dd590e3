//! `LinuxContainerResources` of what is in force.

use joey_cgroup::Resources;
use joey_proto::cri;

/// Resources as CRI has them; what CRI has no field for is left out.
pub(crate) fn resources(
    resources: &Resources,
    oom_score_adj: Option<i32>,
) -> cri::LinuxContainerResources {
    let signed = |value: Option<u64>| i64::try_from(value.unwrap_or(0)).unwrap_or(i64::MAX);
    cri::LinuxContainerResources {
        cpu_period: signed(resources.cpu_period),
        cpu_quota: resources.cpu_quota.unwrap_or(0),
        cpu_shares: signed(resources.cpu_shares),
        memory_limit_in_bytes: resources.memory_limit.unwrap_or(0),
        oom_score_adj: oom_score_adj.unwrap_or(0).into(),
        cpuset_cpus: resources.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: resources.cpuset_mems.clone().unwrap_or_default(),
        hugepage_limits: resources
            .hugepage_limits
            .iter()
            .map(|(page_size, limit)| cri::HugepageLimit {
                page_size: page_size.clone(),
                limit: *limit,
            })
            .collect(),
        unified: super::unsorted(&resources.unified),
        memory_swap_limit_in_bytes: resources.memory_swap.unwrap_or(0),
    }
}
