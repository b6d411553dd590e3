//! StopContainer.

use std::time::Duration;

use joey_proto::cri::{StopContainerRequest, StopContainerResponse};

use crate::service::{Service, gone};
use crate::status::Result;

/// A container that is not there is stopped. A timeout of zero, and a negative one, kills at once.
pub(crate) async fn serve(
    service: &Service,
    request: StopContainerRequest,
) -> Result<StopContainerResponse> {
    let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
    if let Some(container) = gone(service.container(&request.container_id))? {
        service
            .runtime
            .stop_container(container.id(), grace)
            .await?;
    }
    Ok(StopContainerResponse {})
}
