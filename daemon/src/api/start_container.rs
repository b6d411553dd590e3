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
use super::task::to_its_end;

/// Starts a container; one that runs is fine.
pub async fn start(
    state: &Arc<State>,
    request: &StartContainerRequest,
) -> Result<StartContainerResponse, Failure> {
    let container = state.find(&request.container)?;
    let state = Arc::clone(state);
    to_its_end(async move {
        let _turn = state.turns.take(container.id()).await;
        let session = state.sessions.enter(container.id());
        state.start(&container, &session).await?;
        Ok(StartContainerResponse {
            id: container.id().to_owned(),
        })
    })
    .await
}

/// Starts a container with the caller attached to it before it runs: no streams where it runs
/// already.
pub async fn start_attached(
    state: &Arc<State>,
    container: &Arc<Container>,
    stdin: bool,
    size: Option<(u16, u16)>,
) -> Result<(Session, Option<AttachSession>), Failure> {
    let (state, container) = (Arc::clone(state), Arc::clone(container));
    to_its_end(async move {
        let _turn = state.turns.take(container.id()).await;
        let session = state.sessions.enter(container.id());
        let streams = state
            .start_attached(&container, &session, stdin, size)
            .await?;
        Ok((session, streams))
    })
    .await
}

/// Stops a container where it runs and starts it.
pub async fn restart(
    state: &Arc<State>,
    request: RestartContainerRequest,
) -> Result<RestartContainerResponse, Failure> {
    let container = state.find(&request.container)?;
    let state = Arc::clone(state);
    to_its_end(async move {
        let _turn = state.turns.take(container.id()).await;
        // While it is there an ended container is not removed.
        let session = state.sessions.enter(container.id());
        let grace = Duration::from_secs(request.timeout.into());
        state.runtime.stop_container(container.id(), grace).await?;
        state.start(&container, &session).await?;
        Ok(RestartContainerResponse {})
    })
    .await
}

impl State {
    /// Starts a container; `session` is the caller's own.
    async fn start(&self, container: &Container, session: &Session) -> Result<(), Failure> {
        if !self.prepare(container, session).await? {
            return Ok(());
        }
        let started = self.runtime.start_container(container.id()).await;
        started.map_err(Failure::NotStarted)
    }

    async fn start_attached(
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
        started.await.map(Some).map_err(Failure::NotStarted)
    }

    /// Makes an ended container one that can be started; false where it runs already.
    async fn prepare(&self, container: &Container, session: &Session) -> Result<bool, Failure> {
        if container.state() == ContainerState::Exited {
            // Who still reads the former life's output; the reaper waits no longer either.
            drop(tokio::time::timeout(SESSION_GRACE, session.alone()).await);
            self.runtime.renew_container(container.id()).await?;
        }
        Ok(container.state() != ContainerState::Running)
    }
}
