//! ImageStatus.

use std::collections::HashMap;

use joey_proto::cri::{ImageStatusRequest, ImageStatusResponse};

use crate::service::Service;
use crate::status::Result;
use crate::{reply, request};

/// An image that is not there is no error: the answer holds none.
pub(crate) async fn serve(
    service: &Service,
    request: ImageStatusRequest,
) -> Result<ImageStatusResponse> {
    let name = request::image_name(request.image.as_ref())?;
    let Some(image) = service.images.get(name) else {
        return Ok(ImageStatusResponse::default());
    };
    let info = if request.verbose {
        let config = service.images.config_json(&image).await;
        reply::image_info(&image, &config.unwrap_or_default())
    } else {
        HashMap::new()
    };
    Ok(ImageStatusResponse {
        image: Some(reply::image(&image, &service.held_images())),
        info,
    })
}
