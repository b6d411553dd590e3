//! Images, and the file systems they and containers are on.

use std::collections::HashSet;

use joey_image::Image;
use joey_proto::cri;

/// An image. The kubelet must not collect one of `held`.
pub(crate) fn image(image: &Image, held: &HashSet<String>) -> cri::Image {
    let (uid, username) = user(&image.config.user);
    cri::Image {
        id: image.id.clone(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        // CRI wants more than nothing, and an artifact may be empty.
        size: image.size.max(1),
        uid,
        username,
        spec: Some(cri::ImageSpec {
            image: image.id.clone(),
            ..cri::ImageSpec::default()
        }),
        pinned: image.pinned || held.contains(&image.id),
    }
}

/// The user of an image's config, `user[:group]`: an id or a name, never both.
fn user(config: &str) -> (Option<cri::Int64Value>, String) {
    let user = config.split(':').next().unwrap_or_default();
    match user.parse() {
        Ok(value) => (Some(cri::Int64Value { value }), String::new()),
        Err(_) => (None, user.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_an_id_or_a_name() {
        let id = |value| Some(cri::Int64Value { value });
        for (text, wanted) in [
            ("", (None, "")),
            ("0", (id(0), "")),
            ("1002", (id(1002), "")),
            ("1003:users", (id(1003), "")),
            ("www", (None, "www")),
            ("www:100", (None, "www")),
        ] {
            assert_eq!(user(text), (wanted.0, wanted.1.to_owned()), "{text}");
        }
    }
}
