//! Attach: the URL of a streaming attach.

use joey_proto::cri::{AttachRequest, AttachResponse};

use crate::exec::{check_running, check_streams};
use crate::service::Service;
use crate::status::{Result, invalid};

#[allow(
    clippy::unused_async,
    reason = "every RPC is served by an async function"
)]
pub(crate) async fn serve(service: &Service, request: AttachRequest) -> Result<AttachResponse> {
    let container = service.container(&request.container_id)?;
    check_streams(request.stdin, request.stdout, request.stderr, request.tty)?;
    let terminal = container.record().config.tty;
    if request.tty != terminal {
        let has = if terminal { "has" } else { "has no" };
        return Err(invalid(format!(
            "tty is {}, the container {has} a terminal",
            request.tty
        )));
    }
    check_running(&container, "attaching")?;
    let url = service
        .streaming
        .attach_url(joey_streaming::AttachRequest {
            container_id: container.id().to_owned(),
            tty: request.tty,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        })?;
    Ok(AttachResponse { url })
}
