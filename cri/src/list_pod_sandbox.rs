//! ListPodSandbox and StreamPodSandboxes.

use joey_proto::cri::{
    ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox, PodSandboxFilter,
    StreamPodSandboxesRequest, StreamPodSandboxesResponse,
};
use joey_runtime::model::{Owner, PodState};

use crate::chunks::{self, Listing};
use crate::service::Service;
use crate::status::Result;
use crate::{filter, reply};

#[allow(
    clippy::unused_async,
    reason = "every RPC is served by an async function"
)]
pub(crate) async fn serve(
    service: &Service,
    request: ListPodSandboxRequest,
) -> Result<ListPodSandboxResponse> {
    Ok(ListPodSandboxResponse {
        items: list(service, request.filter),
    })
}

#[allow(
    clippy::unused_async,
    reason = "every RPC is served by an async function"
)]
pub(crate) async fn stream(
    service: &Service,
    request: StreamPodSandboxesRequest,
) -> Result<Listing<StreamPodSandboxesResponse>> {
    Ok(chunks::stream(
        list(service, request.filter),
        |pod_sandboxes| StreamPodSandboxesResponse { pod_sandboxes },
    ))
}

fn list(service: &Service, filter: Option<PodSandboxFilter>) -> Vec<PodSandbox> {
    let filter = filter.unwrap_or_default();
    let pods = service.runtime.pods(Owner::Cri);
    pods.iter()
        .map(|pod| pod.record())
        .filter(|pod| pod.state != PodState::Starting && filter::pod(&filter, pod))
        .map(|pod| reply::pod(&pod))
        .collect()
}
