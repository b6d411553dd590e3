//! PodSandboxStatus.

use std::collections::HashMap;

use joey_proto::cri::{ContainerStatus, PodSandboxStatusRequest, PodSandboxStatusResponse};
use joey_runtime::Pod;

use crate::operation::now;
use crate::reply;
use crate::service::Service;
use crate::status::Result;

#[allow(
    clippy::unused_async,
    reason = "every RPC is served by an async function"
)]
pub(crate) async fn serve(
    service: &Service,
    request: PodSandboxStatusRequest,
) -> Result<PodSandboxStatusResponse> {
    let pod = service.pod(&request.pod_sandbox_id)?;
    // Before the records are read: a client drops what is older than what it knows.
    let timestamp = now();
    let record = pod.record();
    let info = if request.verbose {
        reply::pod_info(&record)
    } else {
        HashMap::new()
    };
    Ok(PodSandboxStatusResponse {
        status: Some(reply::pod_status(&record)),
        info,
        containers_statuses: container_statuses(service, &pod),
        timestamp,
    })
}

/// The statuses of a pod's containers.
pub(crate) fn container_statuses(service: &Service, pod: &Pod) -> Vec<ContainerStatus> {
    let containers = pod.containers();
    containers
        .iter()
        .map(|container| {
            let record = container.record();
            let names = service.image_names(&record);
            reply::container_status(&record, container.state(), &names)
        })
        .collect()
}
