//! UpdatePodSandboxResources.

use joey_proto::cri::{UpdatePodSandboxResourcesRequest, UpdatePodSandboxResourcesResponse};

use crate::operation::detached;
use crate::request;
use crate::service::Service;
use crate::status::Result;

pub(crate) async fn serve(
    service: &Service,
    request: UpdatePodSandboxResourcesRequest,
) -> Result<UpdatePodSandboxResourcesResponse> {
    let pod = service.pod(&request.pod_sandbox_id)?;
    let overhead = request
        .overhead
        .as_ref()
        .map(request::resources)
        .transpose()?;
    let resources = request
        .resources
        .as_ref()
        .map(request::resources)
        .transpose()?;
    let runtime = service.runtime.clone();
    detached(async move {
        Ok(runtime
            .update_pod_resources(pod.id(), overhead, resources)
            .await?)
    })
    .await?;
    Ok(UpdatePodSandboxResourcesResponse {})
}
