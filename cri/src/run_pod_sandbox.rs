//! RunPodSandbox.

use joey_proto::cri::{RunPodSandboxRequest, RunPodSandboxResponse};

use crate::request;
use crate::service::Service;
use crate::status::Result;

pub(crate) async fn serve(
    service: &Service,
    request: RunPodSandboxRequest,
) -> Result<RunPodSandboxResponse> {
    let config = request::required(request.config, "config")?;
    service.check_handler(&request.runtime_handler)?;
    let config = request::pod(config, request.runtime_handler)?;
    let pod_sandbox_id = service.runtime.run_pod(config).await?;
    Ok(RunPodSandboxResponse { pod_sandbox_id })
}
