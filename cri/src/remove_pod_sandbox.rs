//! RemovePodSandbox.

use joey_proto::cri::{RemovePodSandboxRequest, RemovePodSandboxResponse};

use crate::service::{Service, gone};
use crate::status::Result;

/// A pod that is not there is removed.
pub(crate) async fn serve(
    service: &Service,
    request: RemovePodSandboxRequest,
) -> Result<RemovePodSandboxResponse> {
    if let Some(pod) = gone(service.pod(&request.pod_sandbox_id))? {
        service.runtime.remove_pod(pod.id()).await?;
    }
    Ok(RemovePodSandboxResponse {})
}
