//! ListMetricDescriptors.

use joey_proto::cri::{ListMetricDescriptorsRequest, ListMetricDescriptorsResponse};

use crate::metrics;
use crate::service::Service;
use crate::status::Result;

#[allow(
    clippy::unused_async,
    reason = "every RPC is served by an async function"
)]
pub(crate) async fn serve(
    _service: &Service,
    _request: ListMetricDescriptorsRequest,
) -> Result<ListMetricDescriptorsResponse> {
    Ok(ListMetricDescriptorsResponse {
        descriptors: metrics::descriptors(),
    })
}
