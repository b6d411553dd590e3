//! StartContainer.

use joey_proto::cri::{StartContainerRequest, StartContainerResponse};

use crate::service::Service;
use crate::status::Result;

pub(crate) async fn serve(
    service: &Service,
    request: StartContainerRequest,
) -> Result<StartContainerResponse> {
    let container = service.container(&request.container_id)?;
    service.runtime.start_container(container.id()).await?;
    Ok(StartContainerResponse {})
}
