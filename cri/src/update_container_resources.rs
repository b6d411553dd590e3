//! UpdateContainerResources.

use joey_proto::cri::{UpdateContainerResourcesRequest, UpdateContainerResourcesResponse};

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
    let resources = request::resources(&resources)?;
    let annotations = request::sorted(request.annotations);
    let runtime = service.runtime.clone();
    detached(async move {
        Ok(runtime
            .update_resources(container.id(), resources, annotations)
            .await?)
    })
    .await?;
    Ok(UpdateContainerResourcesResponse {})
}
