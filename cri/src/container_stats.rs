//! ContainerStats.

use joey_proto::cri::{self, ContainerStatsRequest, ContainerStatsResponse};
use joey_runtime::Container;
use joey_runtime::model::ContainerState;

use crate::operation::blocking;
use crate::reply;
use crate::service::Service;
use crate::status::Result;

pub(crate) async fn serve(
    service: &Service,
    request: ContainerStatsRequest,
) -> Result<ContainerStatsResponse> {
    let container = service.container(&request.container_id)?;
    let service = service.clone();
    let stats = blocking(move || match running_stats(&service, &container) {
        Some(stats) => Ok(stats),
        // A container without processes uses nothing that could be read.
        None => Ok(cri::ContainerStats {
            attributes: Some(reply::container_attributes(&container.record())),
            ..cri::ContainerStats::default()
        }),
    })
    .await?;
    Ok(ContainerStatsResponse { stats: Some(stats) })
}

/// The stats of a container that runs; None when it does not, or ends meanwhile.
pub(crate) fn running_stats(
    service: &Service,
    container: &Container,
) -> Option<cri::ContainerStats> {
    if container.state() != ContainerState::Running {
        return None;
    }
    let record = container.record();
    match service.runtime.container_usage(container) {
        Ok(stats) => Some(reply::container_stats(&record, &stats)),
        Err(error) => {
            tracing::debug!(
                container = container.id(),
                error = error.chain(),
                "no stats"
            );
            None
        }
    }
}
