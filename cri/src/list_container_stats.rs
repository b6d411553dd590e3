//! ListContainerStats and StreamContainerStats.

use joey_proto::cri::{
    ContainerStats, ContainerStatsFilter, ListContainerStatsRequest, ListContainerStatsResponse,
    StreamContainerStatsRequest, StreamContainerStatsResponse,
};
use joey_runtime::model::Owner;

use crate::chunks::{self, Listing};
use crate::container_stats::running_stats;
use crate::filter;
use crate::service::Service;
use crate::spread::spread;
use crate::status::Result;

pub(crate) async fn serve(
    service: &Service,
    request: ListContainerStatsRequest,
) -> Result<ListContainerStatsResponse> {
    Ok(ListContainerStatsResponse {
        stats: list(service, request.filter).await?,
    })
}

pub(crate) async fn stream(
    service: &Service,
    request: StreamContainerStatsRequest,
) -> Result<Listing<StreamContainerStatsResponse>> {
    let stats = list(service, request.filter).await?;
    Ok(chunks::stream(stats, |container_stats| {
        StreamContainerStatsResponse { container_stats }
    }))
}

async fn list(
    service: &Service,
    filter: Option<ContainerStatsFilter>,
) -> Result<Vec<ContainerStats>> {
    let filter = filter.unwrap_or_default();
    let mut containers = service.runtime.containers(Owner::Cri);
    containers.retain(|container| filter::container_stats(&filter, &container.record()));
    let service = service.clone();
    spread(containers, move |container| {
        running_stats(&service, &container)
    })
    .await
}
