//! A caller's credentials for a registry.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Credentials as a pull request carries them (CRI's `AuthConfig`); empty fields are absent.
///
/// `Debug` shows which fields are set, never what they hold.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password of `username`.
    pub password: String,
    /// Base64 of `username:password`, in place of the two.
    pub auth: String,
    /// The registry these are for, as host or URL; empty: for whichever the image is pulled from.
    pub server_address: String,
    /// OAuth2 refresh token, exchanged at the registry's token server.
    pub identity_token: String,
    /// Bearer token, sent to the registry as it is.
    pub registry_token: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |text: &str| if text.is_empty() { "" } else { "<hidden>" };
        f.debug_struct("Credentials")
            .field("username", &hidden(&self.username))
            .field("password", &hidden(&self.password))
            .field("auth", &hidden(&self.auth))
            .field("server_address", &self.server_address)
            .field("identity_token", &hidden(&self.identity_token))
            .field("registry_token", &hidden(&self.registry_token))
            .finish()
    }
}

/// Credentials that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the credentials' auth field is not base64 of user:password")]
pub struct CredentialsError;

/// The one way in which to authenticate.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Secret {
    Anonymous,
    Basic { username: String, password: String },
    IdentityToken { token: String },
    RegistryToken { token: String },
}

impl Credentials {
    /// What to present to `host`: nothing if the credentials are for another one.
    pub(crate) fn secret_for(&self, host: &str) -> Result<Secret, CredentialsError> {
        if !self.server_address.is_empty() && !same_host(&self.server_address, host) {
            return Ok(Secret::Anonymous);
        }
        if !self.registry_token.is_empty() {
            return Ok(Secret::RegistryToken {
                token: self.registry_token.clone(),
            });
        }
        if !self.identity_token.is_empty() {
            return Ok(Secret::IdentityToken {
                token: self.identity_token.clone(),
            });
        }
        if !self.username.is_empty() || !self.password.is_empty() {
            return Ok(Secret::Basic {
                username: self.username.clone(),
                password: self.password.clone(),
            });
        }
        if !self.auth.is_empty() {
            return decode_auth(&self.auth);
        }
        Ok(Secret::Anonymous)
    }
}

fn decode_auth(auth: &str) -> Result<Secret, CredentialsError> {
    let decoded = STANDARD.decode(auth.trim()).map_err(|_| CredentialsError)?;
    let text = String::from_utf8(decoded).map_err(|_| CredentialsError)?;
    let (username, password) = text.split_once(':').ok_or(CredentialsError)?;
    Ok(Secret::Basic {
        username: username.to_owned(),
        // Some writers of docker's config file pad the password with NULs.
        password: password.trim_end_matches('\0').to_owned(),
    })
}

fn same_host(server_address: &str, host: &str) -> bool {
    let without_scheme = server_address
        .split_once("://")
        .map_or(server_address, |(_, rest)| rest);
    let server = without_scheme.split('/').next().unwrap_or_default();
    canonical_host(server).eq_ignore_ascii_case(canonical_host(host))
}

/// Docker Hub goes by several names.
fn canonical_host(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other.strip_suffix(":443").unwrap_or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(username: &str, password: &str) -> Secret {
        Secret::Basic {
            username: username.into(),
            password: password.into(),
        }
    }

    impl fmt::Debug for Secret {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("<test only>")
        }
    }

    #[test]
    fn each_form_gives_its_secret() {
        let user = Credentials {
            username: "u".into(),
            password: "p".into(),
            ..Credentials::default()
        };
        assert_eq!(user.secret_for("r.io"), Ok(basic("u", "p")));
        let auth = Credentials {
            auth: STANDARD.encode("u:p:q\0\0"),
            ..Credentials::default()
        };
        assert_eq!(auth.secret_for("r.io"), Ok(basic("u", "p:q")));
        let bad = Credentials {
            auth: "!!".into(),
            ..Credentials::default()
        };
        assert_eq!(bad.secret_for("r.io"), Err(CredentialsError));
        assert_eq!(
            Credentials::default().secret_for("r.io"),
            Ok(Secret::Anonymous)
        );
    }

    #[test]
    fn credentials_for_another_host_stay_at_home() {
        let at = |server: &str| Credentials {
            username: "u".into(),
            password: "p".into(),
            server_address: server.into(),
            ..Credentials::default()
        };
        assert_eq!(at("other.io").secret_for("r.io"), Ok(Secret::Anonymous));
        assert_eq!(at("r.io:5000").secret_for("r.io"), Ok(Secret::Anonymous));
        assert_eq!(
            at("https://r.io:5000/v2/").secret_for("r.io:5000"),
            Ok(basic("u", "p"))
        );
        assert_eq!(
            at("https://index.docker.io/v1/").secret_for("registry-1.docker.io"),
            Ok(basic("u", "p"))
        );
    }

    #[test]
    fn debug_hides_every_secret() {
        let all = Credentials {
            username: "s3cret".into(),
            password: "s3cret".into(),
            auth: "s3cret".into(),
            server_address: "r.io".into(),
            identity_token: "s3cret".into(),
            registry_token: "s3cret".into(),
        };
        assert!(!format!("{all:?}").contains("s3cret"));
    }
}
