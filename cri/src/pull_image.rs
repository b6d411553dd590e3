//! PullImage.

use joey_image::{Credentials, PullRequest};
use joey_proto::cri::{AuthConfig, PullImageRequest, PullImageResponse};

use crate::request;
use crate::service::Service;
use crate::status::Result;

/// The answer is the image's id, the same as everywhere else.
pub(crate) async fn serve(
    service: &Service,
    request: PullImageRequest,
) -> Result<PullImageResponse> {
    let reference = request::image_name(request.image.as_ref())?.to_owned();
    let handler = request
        .image
        .map(|image| image.runtime_handler)
        .unwrap_or_default();
    service.check_handler(&handler)?;
    let pull = PullRequest {
        reference,
        auth: request.auth.map(credentials),
        progress: None,
    };
    let image = service.images.pull(pull).await?;
    Ok(PullImageResponse {
        image_ref: image.id.clone(),
    })
}

fn credentials(auth: AuthConfig) -> Credentials {
    Credentials {
        username: auth.username,
        password: auth.password,
        auth: auth.auth,
        server_address: auth.server_address,
        identity_token: auth.identity_token,
        registry_token: auth.registry_token,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_credential_is_passed_on() {
        let given = AuthConfig {
            username: "u".into(),
            password: "p".into(),
            auth: "a".into(),
            server_address: "s".into(),
            identity_token: "i".into(),
            registry_token: "r".into(),
        };
        let mapped = credentials(given);
        assert_eq!(
            (mapped.username.as_str(), mapped.password.as_str()),
            ("u", "p")
        );
        assert_eq!(
            (mapped.auth.as_str(), mapped.server_address.as_str()),
            ("a", "s")
        );
        assert_eq!(
            (
                mapped.identity_token.as_str(),
                mapped.registry_token.as_str()
            ),
            ("i", "r")
        );
    }
}
