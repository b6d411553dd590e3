//! CreateContainer.

use joey_proto::cri::{CreateContainerRequest, CreateContainerResponse};

use crate::request;
use crate::service::Service;
use crate::status::Result;

pub(crate) async fn serve(
    service: &Service,
    request: CreateContainerRequest,
) -> Result<CreateContainerResponse> {
    let pod = service.pod(&request.pod_sandbox_id)?;
    let config = request::required(request.config, "config")?;
    let image = config.image.as_ref();
    service.check_handler(image.map_or("", |image| image.runtime_handler.as_str()))?;
    let config = request::container(config, &pod.record().config, |name| {
        service.images.get(name).map(|image| image.id.clone())
    })?;
    let container_id = service.runtime.create_container(pod.id(), config).await?;
    Ok(CreateContainerResponse { container_id })
}
