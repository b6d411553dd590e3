//! CheckpointContainer.

use joey_proto::cri::{CheckpointContainerRequest, CheckpointContainerResponse};

use crate::service::Service;
use crate::status::{Failure, Result};

#[allow(
    clippy::unused_async,
    reason = "every RPC is served by an async function"
)]
pub(crate) async fn serve(
    _service: &Service,
    _request: CheckpointContainerRequest,
) -> Result<CheckpointContainerResponse> {
    Err(Failure::Unimplemented(
        "this version of Joey can't checkpoint containers",
    ))
}
