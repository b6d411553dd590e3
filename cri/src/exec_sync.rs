//! ExecSync.

use std::time::Duration;

use joey_proto::cri::{ExecSyncRequest, ExecSyncResponse};

use crate::operation::detached;
use crate::service::Service;
use crate::status::{Result, invalid};

/// A timeout of zero is none. The runtime cuts the output so that the answer fits one message.
pub(crate) async fn serve(service: &Service, request: ExecSyncRequest) -> Result<ExecSyncResponse> {
    let container = service.container(&request.container_id)?;
    if request.cmd.is_empty() {
        return Err(invalid("cmd is empty"));
    }
    let seconds = u64::try_from(request.timeout)
        .map_err(|_| invalid(format!("timeout {} is negative", request.timeout)))?;
    let timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
    let runtime = service.runtime.clone();
    // A client that goes away leaves the timeout in force.
    let output = detached(async move {
        Ok(runtime
            .exec_sync(container.id(), request.cmd, timeout)
            .await?)
    })
    .await?;
    Ok(ExecSyncResponse {
        stdout: output.stdout,
        stderr: output.stderr,
        exit_code: output.exit_code,
    })
}
