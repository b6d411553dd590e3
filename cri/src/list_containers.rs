//! ListContainers and StreamContainers.

use joey_proto::cri::{
    Container, ContainerFilter, ListContainersRequest, ListContainersResponse,
    StreamContainersRequest, StreamContainersResponse,
};
use joey_runtime::model::Owner;

use crate::chunks::{self, Listing};
use crate::service::{ImageNameCache, Service};
use crate::status::Result;
use crate::{filter, reply};

#[allow(
    clippy::unused_async,
    reason = "every RPC is served by an async function"
)]
pub(crate) async fn serve(
    service: &Service,
    request: ListContainersRequest,
) -> Result<ListContainersResponse> {
    Ok(ListContainersResponse {
        containers: list(service, request.filter),
    })
}

#[allow(
    clippy::unused_async,
    reason = "every RPC is served by an async function"
)]
pub(crate) async fn stream(
    service: &Service,
    request: StreamContainersRequest,
) -> Result<Listing<StreamContainersResponse>> {
    Ok(chunks::stream(
        list(service, request.filter),
        |containers| StreamContainersResponse { containers },
    ))
}

fn list(service: &Service, filter: Option<ContainerFilter>) -> Vec<Container> {
    let filter = filter.unwrap_or_default();
    let mut names = ImageNameCache::default();
    let mut listed = Vec::new();
    for container in service.runtime.containers(Owner::Cri) {
        let (record, state) = (container.record(), container.state());
        if filter::container(&filter, &record, state) {
            listed.push(reply::container(&record, state, names.of(service, &record)));
        }
    }
    listed
}
