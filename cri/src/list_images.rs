//! ListImages and StreamImages.

use joey_proto::cri::{
    Image, ImageFilter, ListImagesRequest, ListImagesResponse, StreamImagesRequest,
    StreamImagesResponse,
};

use crate::chunks::{self, Listing};
use crate::reply;
use crate::service::Service;
use crate::status::Result;

#[allow(
    clippy::unused_async,
    reason = "every RPC is served by an async function"
)]
pub(crate) async fn serve(
    service: &Service,
    request: ListImagesRequest,
) -> Result<ListImagesResponse> {
    Ok(ListImagesResponse {
        images: list(service, request.filter),
    })
}

#[allow(
    clippy::unused_async,
    reason = "every RPC is served by an async function"
)]
pub(crate) async fn stream(
    service: &Service,
    request: StreamImagesRequest,
) -> Result<Listing<StreamImagesResponse>> {
    Ok(chunks::stream(list(service, request.filter), |images| {
        StreamImagesResponse { images }
    }))
}

/// A filter names one image, by any of its names.
fn list(service: &Service, filter: Option<ImageFilter>) -> Vec<Image> {
    let name = filter
        .and_then(|filter| filter.image)
        .map(|image| image.image)
        .unwrap_or_default();
    let held = service.held_images();
    let images = if name.is_empty() {
        service.images.list()
    } else {
        service.images.get(&name).into_iter().collect()
    };
    images
        .iter()
        .map(|image| reply::image(image, &held))
        .collect()
}
