//! Frees what an ended container holds: its pod's addresses, ports and monitor, and with
//! auto-remove the container itself.

use std::sync::Arc;
use std::time::Duration;

use joey_runtime::model::{ContainerState, Owner, PodState};
use joey_runtime::{Container, EventKind};
use tokio::sync::broadcast::error::RecvError;

use super::{AUTO_REMOVE, State, container_log};

/// The longest the end of a pod waits for clients that still read.
pub const SESSION_GRACE: Duration = Duration::from_secs(10);

/// Watches the ends; for ever.
pub async fn run(state: &Arc<State>) {
    let mut events = state.runtime.subscribe();
    sweep(state);
    container_log::sweep(state).await;
    loop {
        match events.recv().await {
            Ok(event) => {
                let ended = event.kind == EventKind::Stopped && event.owner == Owner::Joey;
                if ended && event.container_id != event.pod_id {
                    reap(state, event.container_id);
                }
            }
            Err(RecvError::Lagged(_)) => sweep(state),
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

/// Takes up what ended unseen.
fn sweep(state: &Arc<State>) {
    for container in state.containers() {
        if container.state() == ContainerState::Exited {
            reap(state, container.id().to_owned());
        }
    }
}

fn reap(state: &Arc<State>, id: String) {
    let state = Arc::clone(state);
    tokio::spawn(async move {
        let Ok(container) = state.runtime.container(&id) else {
            return;
        };
        if tokio::time::timeout(SESSION_GRACE, state.sessions.idle(&id))
            .await
            .is_err()
        {
            tracing::debug!(container = id, "its clients are still there");
        }
        if let Err(error) = release(&state, &container).await {
            tracing::warn!(container = id, error = %error.chain(), "an ended container keeps its pod");
        }
    });
}

async fn release(state: &State, container: &Container) -> joey_runtime::Result<()> {
    let pod_id = container.record().pod_id.clone();
    let Ok(pod) = state.runtime.pod(&pod_id) else {
        return Ok(());
    };
    let record = pod.record();
    let auto_remove = record.config.annotations.contains_key(AUTO_REMOVE);
    if auto_remove {
        // It may be started again just now.
        let _turn = state.turns.take(container.id()).await;
        if container.state() == ContainerState::Exited {
            return state.remove_pod(&pod_id).await;
        }
    }
    if record.state == PodState::NotReady {
        return Ok(());
    }
    state.runtime.stop_ended_pod(&pod_id).await
}
