//! `StartContainer` and `RestartContainer`: a created container, or an ended one again.

use std::sync::Arc;
use std::time::Duration;

use joey_proto::api::{
    RestartContainerRequest, RestartContainerResponse, StartContainerRequest,
    StartContainerResponse,
};
use joey_runtime::model::ContainerState;
use joey_runtime::{AttachSession, Container};

use super::State;
use super::reaper::SESSION_GRACE;
use super::sessions::Session;
use super::status::Failure;

/// Starts a container; one that runs is fine.
pub async fn start(
    state: &State,
    request: &StartContainerRequest,
) -> Result<StartContainerResponse, Failure> {
    let container = state.find(&request.container)?;
    let session = state.sessions.enter(container.id());
    state.start(&container, &session).await?;
    Ok(StartContainerResponse {
        id: container.id().to_owned(),
    })
}

/// Stops a container where it runs and starts it, in a task of its own: a client that goes away
/// must not leave it stopped.
pub async fn restart(
    state: &Arc<State>,
    request: RestartContainerRequest,
) -> Result<RestartContainerResponse, Failure> {
    let container = state.find(&request.container)?;
    let state = Arc::clone(state);
    let restarted = tokio::spawn(async move {
        // While it is there an ended container is not removed.
        let session = state.sessions.enter(container.id());
        let grace = Duration::from_secs(request.timeout.into());
        state.runtime.stop_container(container.id(), grace).await?;
        state.start(&container, &session).await?;
        Ok(RestartContainerResponse {})
    });
    restarted
        .await
        .unwrap_or(Err(Failure::Runtime(joey_runtime::Error::Aborted)))
}

impl State {
    /// Starts a container; `session` is the caller's own.
    pub(super) async fn start(
        &self,
        container: &Container,
        session: &Session,
    ) -> Result<(), Failure> {
        if !self.prepare(container, session).await? {
            return Ok(());
        }
        match self.runtime.start_container(container.id()).await {
            // Another call was quicker.
            Err(_) if container.state() == ContainerState::Running => Ok(()),
            started => started.map_err(Failure::NotStarted),
        }
    }

    /// Starts a container with the caller attached to it before it runs; None where it runs already.
    pub(super) async fn start_attached(
        &self,
        container: &Container,
        session: &Session,
        stdin: bool,
        size: Option<(u16, u16)>,
    ) -> Result<Option<AttachSession>, Failure> {
        if !self.prepare(container, session).await? {
            return Ok(None);
        }
        let started = self
            .runtime
            .start_container_attached(container.id(), stdin, size);
        match started.await {
            Err(_) if container.state() == ContainerState::Running => Ok(None),
            started => started.map(Some).map_err(Failure::NotStarted),
        }
    }

    /// Makes an ended container one that can be started; false where it runs already.
    async fn prepare(&self, container: &Container, session: &Session) -> Result<bool, Failure> {
        if container.state() == ContainerState::Exited {
            // Who still reads the former life's output; the reaper waits no longer either.
            drop(tokio::time::timeout(SESSION_GRACE, session.alone()).await);
            let renewed = self.runtime.renew_container(container.id()).await;
            if container.state() == ContainerState::Exited {
                renewed?;
            }
        }
        Ok(container.state() != ContainerState::Running)
    }
}
