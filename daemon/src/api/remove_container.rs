//! `RemoveContainer`: the container, its pod and its log.

use std::sync::Arc;

use joey_proto::api::{RemoveContainerRequest, RemoveContainerResponse};
use joey_runtime::model::ContainerState;

use super::status::Failure;
use super::task::to_its_end;
use super::{State, container_log};

/// Removes a container; a running one only by force.
pub async fn remove(
    state: &Arc<State>,
    request: &RemoveContainerRequest,
) -> Result<RemoveContainerResponse, Failure> {
    let container = state.find(&request.container)?;
    let record = container.record();
    if record.state() == ContainerState::Running && !request.force {
        return Err(Failure::InUse(format!(
            "container {} is running: stop it first, or remove it by force",
            record.config.name
        )));
    }
    let state = Arc::clone(state);
    to_its_end(async move {
        state.remove_pod(&record.pod_id).await?;
        Ok(RemoveContainerResponse {})
    })
    .await
}

impl State {
    /// Removes a pod of Joey's with its container and log; an unknown one is fine.
    pub(super) async fn remove_pod(&self, pod_id: &str) -> joey_runtime::Result<()> {
        let log = self
            .runtime
            .pod(pod_id)
            .ok()
            .map(|pod| pod.record().config.log_directory.clone());
        self.runtime.stop_pod(pod_id).await?;
        self.runtime.remove_pod(pod_id).await?;
        if let Some(log) = log {
            container_log::remove(&self.logs, log).await;
        }
        Ok(())
    }
}
