//! ListPodSandboxMetrics and StreamPodSandboxMetrics.

use joey_proto::cri::{
    ContainerMetrics, ListPodSandboxMetricsRequest, ListPodSandboxMetricsResponse,
    PodSandboxMetrics, StreamPodSandboxMetricsRequest, StreamPodSandboxMetricsResponse,
};
use joey_runtime::model::{ContainerState, Owner, PodRecord, PodState};
use joey_runtime::{Container, Pod};

use crate::chunks::{self, Listing};
use crate::metrics;
use crate::operation::blocking;
use crate::service::{ImageNameCache, Service};
use crate::status::Result;

pub(crate) async fn serve(
    service: &Service,
    _request: ListPodSandboxMetricsRequest,
) -> Result<ListPodSandboxMetricsResponse> {
    Ok(ListPodSandboxMetricsResponse {
        pod_metrics: list(service).await?,
    })
}

pub(crate) async fn stream(
    service: &Service,
    _request: StreamPodSandboxMetricsRequest,
) -> Result<Listing<StreamPodSandboxMetricsResponse>> {
    Ok(chunks::stream(
        list(service).await?,
        |pod_sandbox_metrics| StreamPodSandboxMetricsResponse {
            pod_sandbox_metrics,
        },
    ))
}

async fn list(service: &Service) -> Result<Vec<PodSandboxMetrics>> {
    let service = service.clone();
    blocking(move || {
        let mut names = ImageNameCache::default();
        let mut listed = Vec::new();
        for pod in service.runtime.pods(Owner::Cri) {
            let record = pod.record();
            if record.state == PodState::Ready {
                listed.push(of_pod(&service, &pod, &record, &mut names));
            }
        }
        Ok(listed)
    })
    .await
}

/// What can't be read, because it ends just now, is left out.
fn of_pod(
    service: &Service,
    pod: &Pod,
    record: &PodRecord,
    names: &mut ImageNameCache,
) -> PodSandboxMetrics {
    let metrics = service
        .runtime
        .pod_stats(pod.id())
        .map(|stats| metrics::pod_metrics(record, &stats))
        .unwrap_or_default();
    let containers = pod.containers();
    PodSandboxMetrics {
        pod_sandbox_id: record.id.clone(),
        metrics,
        container_metrics: containers
            .iter()
            .filter_map(|container| of_container(service, container, record, names))
            .collect(),
    }
}

fn of_container(
    service: &Service,
    container: &Container,
    pod: &PodRecord,
    names: &mut ImageNameCache,
) -> Option<ContainerMetrics> {
    if container.state() != ContainerState::Running {
        return None;
    }
    let stats = service.runtime.container_stats(container.id()).ok()?;
    let record = container.record();
    let names = names.of(service, &record);
    let image = names.tags.first().or_else(|| names.digests.first());
    let image = image.unwrap_or(&record.config.image.id);
    Some(metrics::container_metrics(
        &record,
        &pod.config,
        image,
        &stats,
    ))
}
