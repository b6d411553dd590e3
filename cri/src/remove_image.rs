//! RemoveImage.

use joey_proto::cri::{RemoveImageRequest, RemoveImageResponse};

use crate::request;
use crate::service::Service;
use crate::status::Result;

/// Removes the image with all its names; one that is not there is removed. Containers made from it
/// keep their layers.
pub(crate) async fn serve(
    service: &Service,
    request: RemoveImageRequest,
) -> Result<RemoveImageResponse> {
    let name = request::image_name(request.image.as_ref())?;
    service.images.remove(name).await?;
    Ok(RemoveImageResponse {})
}
