//! How requests prove who they come from: Basic, or a Bearer token from the registry's token server.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde::Deserialize;

use super::challenge::Challenge;
use super::clients::HostClients;
use super::error::{FailureKind, HostFailure};
use super::hosts::{authority, is_loopback};
use super::transport::{self, Limits};
use crate::auth::Secret;

const MAX_TOKEN_REPLY: u64 = 1 << 20;
const CLIENT_ID: &str = "joey";

/// Authentication at one host for one repository.
pub(crate) struct Authorizer {
    secret: Secret,
    scope: String,
    current: tokio::sync::Mutex<Option<HeaderValue>>,
}

impl std::fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authorizer")
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct TokenReply {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Authorizer {
    pub fn new(secret: Secret, repository: &str) -> Self {
        let first = match &secret {
            Secret::RegistryToken { token } => header_value(&format!("Bearer {token}")),
            _ => None,
        };
        Self {
            secret,
            scope: format!("repository:{repository}:pull"),
            current: tokio::sync::Mutex::new(first),
        }
    }

    /// The header to send now, if any is known.
    pub async fn header(&self) -> Option<HeaderValue> {
        self.current.lock().await.clone()
    }

    /// Answers a 401: a header that differs from `used`, the one that was refused.
    pub async fn answer(
        &self,
        clients: &HostClients,
        host: &Url,
        challenges: &[Challenge],
        used: Option<&HeaderValue>,
        limits: &Limits,
    ) -> Result<HeaderValue, HostFailure> {
        let mut current = self.current.lock().await;
        if let Some(newer) = current.as_ref().filter(|header| Some(*header) != used) {
            return Ok(newer.clone());
        }
        let name = host.host_str().unwrap_or_default();
        let denied = |message: &str| HostFailure::new(name, FailureKind::Denied, message);
        if matches!(self.secret, Secret::RegistryToken { .. }) {
            return Err(denied("the registry token was refused"));
        }
        let with = |scheme: &str| challenges.iter().find(|c| c.scheme == scheme);
        let text = if let Some(bearer) = with("bearer") {
            let token = self.fetch_token(clients, host, bearer, limits).await?;
            format!("Bearer {token}")
        } else if with("basic").is_some() {
            let Secret::Basic { username, password } = &self.secret else {
                return Err(denied("a user name and password are required"));
            };
            if used.is_some() {
                return Err(denied("the user name or password was refused"));
            }
            basic(username, password)
        } else {
            return Err(denied("401 Unauthorized without a challenge we know"));
        };
        let header = header_value(&text)
            .ok_or_else(|| denied("the token or password cannot be sent in a header"))?;
        *current = Some(header.clone());
        Ok(header)
    }

    async fn fetch_token(
        &self,
        clients: &HostClients,
        host: &Url,
        challenge: &Challenge,
        limits: &Limits,
    ) -> Result<String, HostFailure> {
        let realm = self.realm(host, challenge)?;
        let name = authority(&realm);
        let client = clients.for_url(&realm).await?;
        let parameter = |key: &str| challenge.params.get(key).map(String::as_str);
        let service = parameter("service").unwrap_or_default();
        let scope = parameter("scope").unwrap_or(&self.scope);
        let request = || match &self.secret {
            Secret::IdentityToken { token } => {
                let form = [
                    ("grant_type", "refresh_token"),
                    ("service", service),
                    ("client_id", CLIENT_ID),
                    ("scope", scope),
                    ("refresh_token", token),
                ];
                client
                    .post(realm.clone())
                    .header(
                        reqwest::header::CONTENT_TYPE,
                        "application/x-www-form-urlencoded",
                    )
                    .body(urlencoded(&form))
            }
            other => {
                let mut url = realm.clone();
                if !service.is_empty() {
                    url.query_pairs_mut().append_pair("service", service);
                }
                url.query_pairs_mut().append_pair("scope", scope);
                let request = client.get(url);
                match other {
                    Secret::Basic { username, password } => {
                        match header_value(&basic(username, password)) {
                            Some(value) => request.header(AUTHORIZATION, value),
                            None => request,
                        }
                    }
                    _ => request,
                }
            }
        };
        let response = transport::send(&name, request, limits).await?;
        if !response.status().is_success() {
            return Err(transport::refusal(&name, response, limits).await);
        }
        let body = transport::read_body(&name, response, MAX_TOKEN_REPLY, limits).await?;
        let invalid = |message: &str| HostFailure::new(&name, FailureKind::Invalid, message);
        let reply: TokenReply = serde_json::from_slice(&body)
            .map_err(|_| invalid("the token server's reply is malformed"))?;
        [reply.token, reply.access_token]
            .into_iter()
            .find(|token| !token.is_empty())
            .ok_or_else(|| invalid("the token server's reply has no token"))
    }

    /// The token server, unless asking it would show secrets on the open network.
    fn realm(&self, host: &Url, challenge: &Challenge) -> Result<Url, HostFailure> {
        let name = host.host_str().unwrap_or_default();
        let invalid = |message: String| HostFailure::new(name, FailureKind::Invalid, message);
        let text = challenge
            .params
            .get("realm")
            .ok_or_else(|| invalid("the Bearer challenge has no realm".to_owned()))?;
        let realm = Url::parse(text)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| {
                invalid(format!(
                    "the Bearer challenge's realm {:?} is no URL",
                    crate::shown(text)
                ))
            })?;
        let exposes = realm.scheme() == "http"
            && host.scheme() == "https"
            && !matches!(self.secret, Secret::Anonymous)
            && !is_loopback(realm.host_str().unwrap_or_default());
        if exposes {
            return Err(invalid(format!(
                "its token server {} wants credentials over plain HTTP",
                realm.host_str().unwrap_or_default()
            )));
        }
        Ok(realm)
    }
}

fn basic(username: &str, password: &str) -> String {
    format!(
        "Basic {}",
        STANDARD.encode(format!("{username}:{password}"))
    )
}

fn header_value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn urlencoded(form: &[(&str, &str)]) -> String {
    // The query of a URL has the same encoding as a form.
    let Ok(mut url) = Url::parse("http://form/") else {
        return String::new();
    };
    url.query_pairs_mut().extend_pairs(form);
    url.query().unwrap_or_default().to_owned()
}
