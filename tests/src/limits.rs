//! Limits: what is asked for, what the status tells, and what the kernel has.

use std::path::{Path, PathBuf};

use joey_proto::cri::*;

use crate::Stand;

/// Bytes.
pub const MIB: i64 = 1 << 20;

/// Whether limits are in the files of cgroup v1.
#[must_use]
pub fn is_v1() -> bool {
    !Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The folder of a container or pod in the hierarchy of a controller.
#[must_use]
pub fn group(controller: &str, id: &str) -> PathBuf {
    let root = Path::new("/sys/fs/cgroup");
    let mut folders = vec![if is_v1() {
        root.join(controller)
    } else {
        root.to_owned()
    }];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy().contains(id) {
                return entry.path();
            }
            folders.push(entry.path());
        }
    }
    panic!("{id} has no group of {controller}");
}

/// What a file of a group holds.
#[must_use]
pub fn content(controller: &str, id: &str, file: &str) -> String {
    let path = group(controller, id).join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    text.trim().to_owned()
}

/// What the kernel has, in CRI's terms; −1 is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// µs per period.
    pub quota: i64,
    /// µs.
    pub period: i64,
    /// As v1 has them.
    pub shares: i64,
    /// A list as `0-3`.
    pub cpus: String,
    /// Bytes.
    pub memory: i64,
    /// Memory and swap together.
    pub total: i64,
}

/// Of the text of a file; "max" is −1.
#[must_use]
pub fn number(text: &str) -> i64 {
    text.parse().unwrap_or(-1)
}

/// v1 says "no limit" by a huge number.
#[must_use]
pub fn bytes(text: &str) -> i64 {
    Some(number(text)).filter(|it| *it < 1 << 60).unwrap_or(-1)
}

/// What the kernel has of a container.
#[must_use]
pub fn in_force(id: &str) -> InForce {
    if is_v1() {
        return InForce {
            quota: number(&content("cpu", id, "cpu.cfs_quota_us")),
            period: number(&content("cpu", id, "cpu.cfs_period_us")),
            shares: number(&content("cpu", id, "cpu.shares")),
            cpus: content("cpuset", id, "cpuset.cpus"),
            memory: bytes(&content("memory", id, "memory.limit_in_bytes")),
            total: bytes(&content("memory", id, "memory.memsw.limit_in_bytes")),
        };
    }
    let max = content("cpu", id, "cpu.max");
    let (quota, period) = max.split_once(' ').unwrap();
    let memory = number(&content("memory", id, "memory.max"));
    let swap = number(&content("memory", id, "memory.swap.max"));
    InForce {
        quota: number(quota),
        period: number(period),
        shares: shares_of(number(&content("cpu", id, "cpu.weight"))),
        cpus: content("cpuset", id, "cpuset.cpus.effective"),
        memory,
        total: if swap < 0 || memory < 0 {
            -1
        } else {
            memory + swap
        },
    }
}

/// The shares that these tests ask for, by their weights.
fn shares_of(weight: i64) -> i64 {
    match weight {
        59 => 512,
        100 => 1024,
        170 => 2048,
        other => other,
    }
}

/// Limits to ask for; as the kernel has them: [`given`].
#[must_use]
pub fn asked() -> LinuxContainerResources {
    LinuxContainerResources {
        cpu_shares: 512,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        cpuset_cpus: "0".into(),
        cpuset_mems: "0".into(),
        memory_limit_in_bytes: 64 * MIB,
        ..Default::default()
    }
}

/// [`asked`] as the kernel has it.
#[must_use]
pub fn given() -> InForce {
    InForce {
        quota: 50_000,
        period: 100_000,
        shares: 512,
        cpus: "0".into(),
        memory: 64 * MIB,
        // No swap unless it is asked for.
        total: 64 * MIB,
    }
}

/// A container with limits.
#[must_use]
pub fn limited(
    mut container: ContainerConfig,
    resources: LinuxContainerResources,
) -> ContainerConfig {
    container.linux.as_mut().unwrap().resources = Some(resources);
    container
}

impl Stand {
    /// Asks for other limits of a container.
    pub async fn update(
        &self,
        id: &str,
        resources: LinuxContainerResources,
    ) -> Result<(), tonic::Status> {
        let request = UpdateContainerResourcesRequest {
            container_id: id.into(),
            linux: Some(resources),
            ..Default::default()
        };
        let mut runtime = self.client.runtime();
        runtime.update_container_resources(request).await.map(drop)
    }

    /// Asks for another memory limit of a pod.
    pub async fn limit_pod(&self, id: &str, memory: i64) -> Result<(), tonic::Status> {
        let resources = LinuxContainerResources {
            memory_limit_in_bytes: memory,
            ..Default::default()
        };
        let request = UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: id.into(),
            overhead: None,
            resources: Some(resources),
        };
        let mut runtime = self.client.runtime();
        runtime
            .update_pod_sandbox_resources(request)
            .await
            .map(drop)
    }

    /// The limits in a container's status.
    pub async fn told(&self, id: &str) -> LinuxContainerResources {
        let resources = self.client.status(id).await.resources.unwrap();
        resources.linux.unwrap()
    }
}
