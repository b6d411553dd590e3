//! `WaitContainer`: for a container's end, or until it is gone.

use joey_proto::api::{WaitContainerRequest, WaitContainerResponse};
use joey_runtime::EventKind;
use joey_runtime::model::ContainerState;
use tokio::sync::broadcast::error::RecvError;

use super::State;
use super::status::Failure;

/// Waits.
pub async fn wait(
    state: &State,
    request: &WaitContainerRequest,
) -> Result<WaitContainerResponse, Failure> {
    if request.removed {
        return wait_for_removal(state, &request.container).await;
    }
    let container = state.find(&request.container)?;
    let _busy = state.sessions.enter(container.id());
    // As docker has it: what does not run is not waited for.
    if container.state() == ContainerState::Created {
        return Ok(WaitContainerResponse::default());
    }
    let exit = state.runtime.wait_container(container.id()).await?;
    Ok(WaitContainerResponse {
        exit_code: exit.code,
        reason: exit.reason(),
    })
}

async fn wait_for_removal(state: &State, name: &str) -> Result<WaitContainerResponse, Failure> {
    // Listened to first: a removal in between is not missed.
    let mut events = state.runtime.subscribe();
    loop {
        match state.find(name) {
            Ok(_) => {}
            Err(Failure::NotFound { .. }) => return Ok(WaitContainerResponse::default()),
            Err(other) => return Err(other),
        }
        loop {
            match events.recv().await {
                Ok(event) if event.kind != EventKind::Deleted => {}
                Ok(_) | Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return Err(joey_runtime::Error::Aborted.into()),
            }
        }
    }
}
