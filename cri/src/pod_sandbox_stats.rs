//! PodSandboxStats.

use joey_proto::cri::{self, PodSandboxStatsRequest, PodSandboxStatsResponse};
use joey_runtime::Pod;

use crate::container_stats::running_stats;
use crate::operation::blocking;
use crate::reply;
use crate::service::Service;
use crate::status::Result;

pub(crate) async fn serve(
    service: &Service,
    request: PodSandboxStatsRequest,
) -> Result<PodSandboxStatsResponse> {
    let pod = service.pod(&request.pod_sandbox_id)?;
    let service = service.clone();
    let stats = blocking(move || stats(&service, &pod)).await?;
    Ok(PodSandboxStatsResponse { stats: Some(stats) })
}

pub(crate) fn stats(service: &Service, pod: &Pod) -> Result<cri::PodSandboxStats> {
    let stats = service.runtime.pod_stats(pod.id())?;
    let containers = pod.containers();
    let running = containers
        .iter()
        .filter_map(|container| running_stats(service, container))
        .collect();
    Ok(reply::pod_stats(
        &pod.record(),
        &stats,
        stats.group.psi().as_ref(),
        stats.group.process_count(),
        running,
    ))
}
