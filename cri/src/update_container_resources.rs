//! UpdateContainerResources.

use joey_proto::cri::{UpdateContainerResourcesRequest, UpdateContainerResourcesResponse};
use joey_runtime::LiveUpdate;

use crate::operation::detached;
use crate::request;
use crate::service::Service;
use crate::status::Result;

/// Fields that are not given stay. `oom_score_adj` is not changed: the kubelet sends it along as it was.
pub(crate) async fn serve(
    service: &Service,
    request: UpdateContainerResourcesRequest,
) -> Result<UpdateContainerResourcesResponse> {
    let container = service.container(&request.container_id)?;
    let resources = request::required(request.linux, "linux")?;
    let update = LiveUpdate {
        resources: request::resources(&resources)?,
        annotations: request::sorted(request.annotations),
        reason: "UpdateContainerResources".to_owned(),
        ..LiveUpdate::default()
    };
    let runtime = service.runtime.clone();
    detached(async move { Ok(runtime.update_container(container.id(), update).await?) }).await?;
    Ok(UpdateContainerResourcesResponse {})
}
