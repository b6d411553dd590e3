//! ReopenContainerLog.

use joey_proto::cri::{ReopenContainerLogRequest, ReopenContainerLogResponse};

use crate::operation::detached;
use crate::service::Service;
use crate::status::Result;

pub(crate) async fn serve(
    service: &Service,
    request: ReopenContainerLogRequest,
) -> Result<ReopenContainerLogResponse> {
    let container = service.container(&request.container_id)?;
    let runtime = service.runtime.clone();
    detached(async move { Ok(runtime.reopen_log(container.id()).await?) }).await?;
    Ok(ReopenContainerLogResponse {})
}
