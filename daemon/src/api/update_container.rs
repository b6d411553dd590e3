//! `UpdateContainer`: other limits and environment for a container that lives.

use std::sync::Arc;

use joey_proto::api::{UpdateContainerRequest, UpdateContainerResponse};
use joey_runtime::LiveUpdate;

use super::create_container::env;
use super::status::Failure;
use super::task::to_its_end;
use super::{State, limits};

/// Changes all of it or nothing.
pub async fn update(
    state: &Arc<State>,
    request: UpdateContainerRequest,
) -> Result<UpdateContainerResponse, Failure> {
    let container = state.find(&request.container)?;
    let update = LiveUpdate {
        resources: limits::resources(&request.limits.unwrap_or_default())?,
        env: request
            .env
            .iter()
            .map(|entry| env(entry))
            .collect::<Result<_, _>>()?,
        reason: "joey update".to_owned(),
        ..LiveUpdate::default()
    };
    let state = Arc::clone(state);
    to_its_end(async move {
        state
            .runtime
            .update_container(container.id(), update)
            .await?;
        Ok(UpdateContainerResponse {})
    })
    .await
}
