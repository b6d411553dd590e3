//! ListContainerStats and StreamContainerStats.

use joey_proto::cri::{
    ContainerStats, ContainerStatsFilter, ListContainerStatsRequest, ListContainerStatsResponse,
    StreamContainerStatsRequest, StreamContainerStatsResponse,
};
use joey_runtime::model::Owner;

use crate::chunks::{self, Listing};
use crate::container_stats::running_stats;
use crate::filter;
use crate::operation::blocking;
use crate::service::Service;
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
    let service = service.clone();
    blocking(move || {
        let containers = service.runtime.containers(Owner::Cri);
        let wanted = containers
            .iter()
            .filter(|container| filter::container_stats(&filter, &container.record()));
        Ok(wanted
            .filter_map(|container| running_stats(&service, container))
            .collect())
    })
    .await
}
