//! Removes a pod and its containers.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::objects::Pod;
use crate::runtime::Runtime;

impl Runtime {
    /// Removes a pod, stopping it first where it runs; an unknown one is fine.
    ///
    /// # Errors
    /// What could not be removed; a retry goes on from there.
    pub async fn remove_pod(self: &Arc<Self>, id: &str) -> Result<()> {
        let Ok(pod) = self.pod(id) else { return Ok(()) };
        let runtime = Arc::clone(self);
        let key = format!("remove-pod/{}", pod.id());
        self.operations
            .run(
                key,
                move || async move { runtime.remove_known_pod(&pod).await },
            )
            .await
    }

    async fn remove_known_pod(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<()> {
        // To the end: nothing may be created in it, or make it run again, meanwhile.
        let _changing = pod.changing.write().await;
        self.stop_changing_pod(pod).await?;
        for container in pod.containers() {
            self.remove_container(container.id()).await?;
        }
        self.remove_pod_folder(pod.id())?;
        pod.erase(&self.pod_records)?;
        self.forget_pod(pod.id());
        self.announce(pod, pod.id(), EventKind::Deleted);
        Ok(())
    }

    /// Takes away a pod's run folder; an absent one is fine.
    pub(crate) fn remove_pod_folder(&self, id: &str) -> Result<()> {
        let folder = self.config.pod_folder(id);
        match joey_failpoint::hit("pod.folder.remove").and_then(|()| joey_removal::remove(&folder))
        {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::file("remove", folder, error))
            }
            _ => Ok(()),
        }
    }
}
