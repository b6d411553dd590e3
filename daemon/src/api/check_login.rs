//! `CheckLogin`: whether a registry takes some credentials.

use joey_image::Credentials;
use joey_proto::api::{CheckLoginRequest, CheckLoginResponse, RegistryAuth};

use super::State;
use super::status::Failure;

/// Asks the registry.
pub async fn check(
    state: &State,
    request: CheckLoginRequest,
) -> Result<CheckLoginResponse, Failure> {
    let CheckLoginRequest { registry, auth } = request;
    let auth = auth.ok_or_else(|| Failure::Invalid("no credentials are given".into()))?;
    state
        .images
        .check_login(&registry, credentials(auth))
        .await?;
    Ok(CheckLoginResponse {})
}

/// As the image store has them.
pub fn credentials(auth: RegistryAuth) -> Credentials {
    Credentials {
        username: auth.username,
        password: auth.password,
        identity_token: auth.identity_token,
        registry_token: auth.registry_token,
        ..Credentials::default()
    }
}
