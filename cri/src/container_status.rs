//! ContainerStatus.

use std::collections::HashMap;

use joey_proto::cri::{ContainerStatusRequest, ContainerStatusResponse};

use crate::reply;
use crate::service::Service;
use crate::status::Result;

#[allow(
    clippy::unused_async,
    reason = "every RPC is served by an async function"
)]
pub(crate) async fn serve(
    service: &Service,
    request: ContainerStatusRequest,
) -> Result<ContainerStatusResponse> {
    let container = service.container(&request.container_id)?;
    let record = container.record();
    let names = service.image_names(&record);
    let info = if request.verbose {
        reply::container_info(&record)
    } else {
        HashMap::new()
    };
    Ok(ContainerStatusResponse {
        status: Some(reply::container_status(&record, container.state(), &names)),
        info,
    })
}
