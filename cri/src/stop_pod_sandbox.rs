//! StopPodSandbox.

use joey_proto::cri::{StopPodSandboxRequest, StopPodSandboxResponse};

use crate::service::{Service, gone};
use crate::status::Result;

/// A pod that is not there is stopped.
pub(crate) async fn serve(
    service: &Service,
    request: StopPodSandboxRequest,
) -> Result<StopPodSandboxResponse> {
    if let Some(pod) = gone(service.pod(&request.pod_sandbox_id))? {
        service.runtime.stop_pod(pod.id()).await?;
    }
    Ok(StopPodSandboxResponse {})
}
