//! ListPodSandboxStats and StreamPodSandboxStats.

use joey_proto::cri::{
    ListPodSandboxStatsRequest, ListPodSandboxStatsResponse, PodSandboxStats,
    PodSandboxStatsFilter, StreamPodSandboxStatsRequest, StreamPodSandboxStatsResponse,
};
use joey_runtime::model::{Owner, PodState};

use crate::chunks::{self, Listing};
use crate::filter;
use crate::pod_sandbox_stats::stats;
use crate::service::Service;
use crate::spread::spread;
use crate::status::Result;

pub(crate) async fn serve(
    service: &Service,
    request: ListPodSandboxStatsRequest,
) -> Result<ListPodSandboxStatsResponse> {
    Ok(ListPodSandboxStatsResponse {
        stats: list(service, request.filter).await?,
    })
}

pub(crate) async fn stream(
    service: &Service,
    request: StreamPodSandboxStatsRequest,
) -> Result<Listing<StreamPodSandboxStatsResponse>> {
    let stats = list(service, request.filter).await?;
    Ok(chunks::stream(stats, |pod_sandbox_stats| {
        StreamPodSandboxStatsResponse { pod_sandbox_stats }
    }))
}

/// Only ready pods use anything; one that ends meanwhile is passed over.
async fn list(
    service: &Service,
    filter: Option<PodSandboxStatsFilter>,
) -> Result<Vec<PodSandboxStats>> {
    let filter = filter.unwrap_or_default();
    let mut pods = service.runtime.pods(Owner::Cri);
    pods.retain(|pod| {
        let record = pod.record();
        record.state == PodState::Ready && filter::pod_stats(&filter, &record)
    });
    let service = service.clone();
    spread(pods, move |pod| match stats(&service, &pod) {
        Ok(stats) => Some(stats),
        Err(failure) => {
            tracing::debug!(pod = pod.id(), error = failure.message(), "no stats");
            None
        }
    })
    .await
}
