//! Changes a pod's resources.

use std::sync::Arc;

use joey_cgroup::Resources;

use crate::error::{Error, Result};
use crate::resources::merged;
use crate::runtime::Runtime;

impl Runtime {
    /// Records a pod's new resources. The kubelet sets the cgroups it made itself; Joey sets its own.
    ///
    /// # Errors
    /// [`Error::NotFound`], or when the cgroup refuses.
    pub async fn update_pod_resources(
        self: &Arc<Self>,
        id: &str,
        overhead: Option<Resources>,
        resources: Option<Resources>,
    ) -> Result<()> {
        let pod = self.pod(id)?;
        let _changing = pod.changing.write().await;
        let record = pod.record();
        if record.config.cgroup_parent.is_empty()
            && let Some(resources) = &resources
        {
            let parent = self.cgroup_parent("", &record.id);
            let group = self.cgroups.parent_group(&parent);
            if group.exists() {
                group
                    .update(resources)
                    .await
                    .map_err(|e| Error::limits("update the pod's cgroup", e))?;
            }
        }
        pod.change(|record| {
            let config = &mut record.config;
            for (old, new) in [
                (&mut config.overhead, overhead),
                (&mut config.resources, resources),
            ] {
                if let Some(new) = new {
                    *old = Some(merged(&old.take().unwrap_or_default(), new));
                }
            }
        });
        pod.save(&self.pod_records)
    }
}
