//! Version.

use joey_proto::cri::{VersionRequest, VersionResponse};

use crate::service::Service;
use crate::status::Result;

/// Of the answer's own format; clients have compared it with this text since v1alpha1.
const FORMAT: &str = "0.1.0";

#[allow(
    clippy::unused_async,
    reason = "every RPC is served by an async function"
)]
pub(crate) async fn serve(service: &Service, _request: VersionRequest) -> Result<VersionResponse> {
    Ok(VersionResponse {
        version: FORMAT.to_owned(),
        runtime_name: "joey".to_owned(),
        runtime_version: service.options.version.clone(),
        runtime_api_version: "v1".to_owned(),
    })
}
