//! `ListImages` and `RemoveImage`.

use joey_image::Image;
use joey_proto::api::{self, ListImagesResponse, RemoveImageRequest, RemoveImageResponse};
use joey_runtime::model::Owner;

use super::State;
use super::log_line::nanoseconds;
use super::status::Failure;

/// All images.
pub fn list(state: &State) -> ListImagesResponse {
    let images = state.images.list();
    ListImagesResponse {
        images: images.iter().map(|image| describe(image)).collect(),
    }
}

fn describe(image: &Image) -> api::Image {
    api::Image {
        id: image.id.clone(),
        tags: image.repo_tags.clone(),
        digests: image.repo_digests.clone(),
        size: image.size,
        created_at: image
            .created
            .as_deref()
            .and_then(nanoseconds)
            .unwrap_or_default(),
    }
}

/// Removes a tag of an image that has others, else the image; one that a container was made from
/// only by force. Such a container keeps its layers.
pub async fn remove(
    state: &State,
    request: RemoveImageRequest,
) -> Result<RemoveImageResponse, Failure> {
    let image = state
        .images
        .get(&request.image)
        .ok_or_else(|| Failure::NotFound {
            kind: "image",
            name: request.image.clone(),
        })?;
    if state.images.untag(&request.image).await? {
        return Ok(RemoveImageResponse {
            id: image.id.clone(),
        });
    }
    if !request.force
        && let Some(user) = user_of(state, &image.id)
    {
        return Err(Failure::InUse(format!(
            "image {} is used by container {user}: remove that first, or the image by force",
            request.image
        )));
    }
    state.images.remove(&image.id).await?;
    Ok(RemoveImageResponse {
        id: image.id.clone(),
    })
}

fn user_of(state: &State, image: &str) -> Option<String> {
    let owners = [Owner::Joey, Owner::Cri].into_iter();
    let mut containers = owners.flat_map(|owner| state.runtime.containers(owner));
    let user = containers.find(|container| container.record().config.image.id == image)?;
    Some(user.record().config.name.clone())
}
