//! Makes limits right again that somebody else wrote, and those of an update that a killed daemon
//! had begun.

use std::sync::Arc;

use joey_cgroup::{Group, Resources};

use super::overlay::compose;
use crate::error::{Error, Result};
use crate::model::ContainerState;
use crate::objects::{Container, Pod};
use crate::oci;
use crate::runtime::Runtime;

impl Runtime {
    /// Every pod's and running container's.
    pub(crate) async fn restore_limits(self: &Arc<Self>) {
        let pods = self.all_pods();
        let restored = pods.iter().map(|pod| async {
            self.restore_pod(pod).await;
            for container in pod.containers() {
                if container.state() == ContainerState::Running {
                    self.restore_container(&container).await;
                }
            }
        });
        futures::future::join_all(restored).await;
    }

    async fn restore_container(&self, container: &Container) {
        let record = container.record();
        match oci::cgroup_resources(&record.effective()) {
            Ok(wanted) => restore(&record.id, &record.cgroup, &wanted).await,
            Err(error) => {
                tracing::warn!(container = record.id, error = %error.chain(), "limits are not restored");
            }
        }
    }

    async fn restore_pod(&self, pod: &Pod) {
        if let Some((group, wanted)) = self.own_pod_limits(pod) {
            restore(pod.id(), &group, &wanted).await;
        }
    }

    /// Brings a pod's own limits into force where its group is there.
    pub(super) async fn limit_pod(&self, pod: &Pod) -> Result<()> {
        let Some((group, wanted)) = self.own_pod_limits(pod) else {
            return Ok(());
        };
        if !group.exists() {
            let checked = group.check(&wanted);
            return checked.map_err(|e| Error::limits("update the pod's cgroup", e));
        }
        let updated = group.update(&wanted).await;
        updated.map_err(|e| Error::limits("update the pod's cgroup", e))
    }

    /// Makes the group of a pod whose limits were changed before it had one.
    pub(crate) async fn make_limited_pod_group(&self, pod: &Pod) -> Result<()> {
        let Some((_, wanted)) = self.own_pod_limits(pod) else {
            return Ok(());
        };
        let parent = self.cgroup_parent("", pod.id());
        let made = self.cgroups.create_parent(&parent, &wanted).await;
        made.map(drop)
            .map_err(|e| Error::limits("limit the pod's cgroup", e))
    }

    /// The group of a pod that is Joey's to limit, and its limits where any were set.
    fn own_pod_limits(&self, pod: &Pod) -> Option<(Group, Resources)> {
        let record = pod.record();
        let update = record
            .overlays
            .iter()
            .filter(|overlay| overlay.name == super::overlay::LIVE_UPDATE);
        let update: Vec<_> = update.cloned().collect();
        if !record.config.cgroup_parent.is_empty() || update.is_empty() {
            return None;
        }
        let group = self
            .cgroups
            .parent_group(&self.cgroup_parent("", &record.id));
        Some((group, compose(&Resources::default(), &update)))
    }
}

async fn restore(id: &str, group: &Group, wanted: &Resources) {
    match group.restore(wanted).await {
        Ok(restored) => {
            if !restored.changed.is_empty() {
                tracing::warn!(id, settings = ?restored.changed, "limits that somebody changed are restored");
            }
            if let Some(error) = restored.refused {
                let error = crate::error::chain(&error);
                tracing::warn!(id, error, "a limit can't be restored");
            }
        }
        Err(error) => {
            let error = crate::error::chain(&error);
            tracing::warn!(id, error, "limits are not restored");
        }
    }
}
