//! RemoveContainer.

use joey_proto::cri::{RemoveContainerRequest, RemoveContainerResponse};

use crate::service::{Service, gone};
use crate::status::Result;

/// A container that is not there is removed.
pub(crate) async fn serve(
    service: &Service,
    request: RemoveContainerRequest,
) -> Result<RemoveContainerResponse> {
    if let Some(container) = gone(service.container(&request.container_id))? {
        service.runtime.remove_container(container.id()).await?;
    }
    Ok(RemoveContainerResponse {})
}
