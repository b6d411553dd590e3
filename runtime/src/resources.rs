//! Changes a container's limits while it lives.

use std::collections::BTreeMap;
use std::sync::Arc;

use joey_cgroup::Resources;

use crate::error::{Error, Result};
use crate::model::{ContainerState, Exit};
use crate::runtime::Runtime;

impl Runtime {
    /// Changes a container's limits: all or none. −1 removes a limit, what is not given stays.
    ///
    /// # Errors
    /// [`Error::WrongState`] for an ended container; the cgroup refuses.
    pub async fn update_resources(
        self: &Arc<Self>,
        id: &str,
        resources: Resources,
        annotations: BTreeMap<String, String>,
    ) -> Result<()> {
        let container = self.container(id)?;
        let _changing = container.changing.lock().await;
        let record = container.record();
        if record.state() == ContainerState::Exited {
            return Err(Error::WrongState {
                kind: "container",
                id: record.id.clone(),
                state: "exited",
                operation: "updating resources",
                needs: "created or running",
            });
        }
        let mut config = record.config.clone();
        config.resources = merged(&record.config.resources, resources);
        config.annotations.extend(annotations);
        let wanted = crate::oci::cgroup_resources(&config)?;
        let step = format!("update container {}", record.id);
        let checked = record.cgroup.check(&wanted);
        checked.map_err(|e| Error::limits(&step, e))?;
        if record.state() == ContainerState::Running {
            record
                .cgroup
                .update(&Resources {
                    devices: None,
                    ..wanted
                })
                .await
                .map_err(|e| Error::limits(step, e))?;
        }
        container.change(|record| record.config = config);
        container.save(&self.container_records)
    }

    /// Answers when a container has ended.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn wait_container(&self, id: &str) -> Result<Exit> {
        self.container(id)?.ended().await.ok_or(Error::Aborted)
    }
}

/// `new` where it gives a value, else `old`. CRI's zero is "not given".
pub(crate) fn merged(old: &Resources, new: Resources) -> Resources {
    fn pick<T: Clone + Default + PartialEq>(old: &Option<T>, new: Option<T>) -> Option<T> {
        new.filter(|value| *value != T::default())
            .or_else(|| old.clone())
    }
    fn longer<T: Clone>(old: &[T], new: Vec<T>) -> Vec<T> {
        if new.is_empty() { old.to_vec() } else { new }
    }
    let mut hugepage_limits = old.hugepage_limits.clone();
    hugepage_limits.retain(|(size, _)| new.hugepage_limits.iter().all(|(other, _)| other != size));
    hugepage_limits.extend(new.hugepage_limits);
    let mut unified = old.unified.clone();
    unified.extend(new.unified);
    let new_limit = new.memory_limit.filter(|limit| *limit != 0);
    let memory_swap = match (pick(&None, new.memory_swap), new_limit) {
        (Some(swap), _) => Some(swap),
        // Memory and swap together were the old limit; they follow it.
        (None, Some(_)) if old.memory_swap == old.memory_limit => None,
        (None, _) => old.memory_swap,
    };
    Resources {
        cpu_period: pick(&old.cpu_period, new.cpu_period),
        cpu_quota: pick(&old.cpu_quota, new.cpu_quota),
        cpu_shares: pick(&old.cpu_shares, new.cpu_shares),
        cpu_burst: new.cpu_burst.or(old.cpu_burst),
        cpu_idle: new.cpu_idle.or(old.cpu_idle),
        cpuset_cpus: pick(&old.cpuset_cpus, new.cpuset_cpus),
        cpuset_mems: pick(&old.cpuset_mems, new.cpuset_mems),
        memory_limit: pick(&old.memory_limit, new.memory_limit),
        memory_swap,
        memory_reservation: pick(&old.memory_reservation, new.memory_reservation),
        swappiness: new.swappiness.or(old.swappiness),
        pids_limit: pick(&old.pids_limit, new.pids_limit),
        hugepage_limits,
        unified,
        blkio_weight: new.blkio_weight.or(old.blkio_weight),
        blkio_weight_devices: longer(&old.blkio_weight_devices, new.blkio_weight_devices),
        blkio_throttles: longer(&old.blkio_throttles, new.blkio_throttles),
        devices: new.devices.or_else(|| old.devices.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_leaves_and_minus_one_replaces() {
        let old = Resources {
            cpu_quota: Some(5000),
            cpu_shares: Some(100),
            ..Resources::default()
        };
        let new = Resources {
            cpu_quota: Some(-1),
            cpu_shares: Some(0),
            pids_limit: Some(7),
            ..Resources::default()
        };
        let result = merged(&old, new);
        assert_eq!(result.cpu_quota, Some(-1));
        assert_eq!(result.cpu_shares, Some(100));
        assert_eq!(result.pids_limit, Some(7));
    }

    #[test]
    fn limits_of_other_page_sizes_stay() {
        let limits = |list: &[(&str, u64)]| Resources {
            hugepage_limits: list
                .iter()
                .map(|(size, limit)| ((*size).to_owned(), *limit))
                .collect(),
            ..Resources::default()
        };
        let result = merged(&limits(&[("2MB", 1), ("1GB", 2)]), limits(&[("2MB", 3)]));
        assert_eq!(result, limits(&[("1GB", 2), ("2MB", 3)]));
    }

    #[test]
    fn swap_follows_the_limit_it_equalled() {
        let old = Resources {
            memory_limit: Some(10),
            memory_swap: Some(10),
            ..Resources::default()
        };
        let new = Resources {
            memory_limit: Some(20),
            ..Resources::default()
        };
        let result = merged(&old, new);
        assert_eq!((result.memory_limit, result.memory_swap), (Some(20), None));
    }
}
