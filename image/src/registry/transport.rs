//! One request to one host: bounded retries, redirects, authentication, bounded bodies.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, LOCATION, RANGE, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::time::{sleep, timeout};

use super::challenge;
use super::clients::HostClients;
use super::error::{FailureKind, HostFailure};
use super::hosts::authority;
use super::token::Authorizer;

/// Requests sent for one answer, the first included.
const ATTEMPTS: u32 = 4;
const FIRST_DELAY: Duration = Duration::from_millis(200);
/// A longer Retry-After is passed on to the caller instead of being waited for.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// An answer's head must come within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 5;
/// Answers of 401 to one request: none yet, token expired, token refused.
const MAX_CHALLENGES: usize = 2;
const MAX_ERROR_BODY: u64 = 16 << 10;

/// Time-outs of a session.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Longest time for a document, and for a transfer to make no real progress.
    pub progress: Duration,
}

impl Limits {
    fn head(&self) -> Duration {
        self.progress.min(HEAD_TIMEOUT)
    }
}

/// A host of a registry, ready to be asked.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub base: Url,
    pub clients: HostClients,
    /// The operator's additional headers.
    pub headers: HeaderMap,
    pub authorizer: Authorizer,
    /// The `ns` parameter, where the host is a mirror.
    pub namespace: Option<String>,
}

impl Endpoint {
    /// Host and port for messages.
    pub fn name(&self) -> String {
        authority(&self.base)
    }

    fn url(&self, path: &str) -> Result<Url, HostFailure> {
        let mut url = self.base.join(path).map_err(|error| {
            HostFailure::new(self.name(), FailureKind::Invalid, error.to_string())
        })?;
        if let Some(namespace) = &self.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        Ok(url)
    }

    /// Sends a request and answers challenges; returns successes only.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        limits: &Limits,
    ) -> Result<Response, HostFailure> {
        let name = self.name();
        let url = self.url(path)?;
        let mut authorization = self.authorizer.header().await;
        for round in 0.. {
            let request = || {
                let mut request = self
                    .clients
                    .own()
                    .request(method.clone(), url.clone())
                    .headers(self.headers.clone())
                    .headers(headers.clone());
                if let Some(value) = &authorization {
                    request = request.header(AUTHORIZATION, value.clone());
                }
                request
            };
            let response = send(&name, request, limits).await?;
            let response = self
                .follow(response, &url, &method, &headers, limits)
                .await?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            // Another origin's challenge is not the registry's: our secrets are none of its business.
            let foreign = response.url().origin() != url.origin();
            if status != StatusCode::UNAUTHORIZED || foreign || round >= MAX_CHALLENGES {
                return Err(refusal(&name, response, limits).await);
            }
            let challenges = challenge::challenges(response.headers());
            drop(response);
            let answer = self
                .authorizer
                .answer(
                    &self.clients,
                    &self.base,
                    &challenges,
                    authorization.as_ref(),
                    limits,
                )
                .await?;
            authorization = Some(answer);
        }
        Err(HostFailure::new(
            name,
            FailureKind::Denied,
            "authentication did not end",
        ))
    }

    /// Follows redirects. To another origin neither credentials, nor the operator's headers, nor the
    /// host's own TLS settings travel.
    async fn follow(
        &self,
        mut response: Response,
        start: &Url,
        method: &Method,
        headers: &HeaderMap,
        limits: &Limits,
    ) -> Result<Response, HostFailure> {
        let name = self.name();
        let invalid = |message: String| HostFailure::new(&name, FailureKind::Invalid, message);
        let mut at = start.clone();
        for _ in 0..MAX_REDIRECTS {
            if !is_redirect(response.status()) {
                return Ok(response);
            }
            let next = response
                .headers()
                .get(LOCATION)
                .and_then(|value| value.to_str().ok())
                .and_then(|text| at.join(text).ok())
                .filter(|url| matches!(url.scheme(), "http" | "https"))
                .ok_or_else(|| invalid("a redirect without a usable location".to_owned()))?;
            if at.scheme() == "https" && next.scheme() == "http" {
                return Err(invalid(
                    "a redirect from https to plain http is not followed".to_owned(),
                ));
            }
            let home = next.origin() == start.origin();
            let authorization = if home {
                self.authorizer.header().await
            } else {
                None
            };
            let client = self.clients.for_url(&next).await?;
            let request = || {
                let mut request = client.request(method.clone(), next.clone());
                if home {
                    request = request.headers(self.headers.clone());
                }
                for header in [ACCEPT, RANGE] {
                    if let Some(value) = headers.get(&header) {
                        request = request.header(header, value.clone());
                    }
                }
                if let Some(value) = &authorization {
                    request = request.header(AUTHORIZATION, value.clone());
                }
                request
            };
            response = send(&authority(&next), request, limits).await?;
            at = next;
        }
        Err(invalid(format!("more than {MAX_REDIRECTS} redirects")))
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Sends a request until the answer is something else than "later", within bounds.
pub(crate) async fn send(
    host: &str,
    request: impl Fn() -> RequestBuilder,
    limits: &Limits,
) -> Result<Response, HostFailure> {
    let mut delay = FIRST_DELAY;
    for attempt in 1.. {
        let last = attempt >= ATTEMPTS;
        match timeout(limits.head(), request().send()).await {
            Err(_) => {
                return Err(HostFailure::new(
                    host,
                    FailureKind::Down,
                    format!("no answer within {} s", limits.head().as_secs()),
                ));
            }
            // A host that cannot be connected to is not worth waiting for: others may be there.
            Ok(Err(error)) if last || error.is_connect() || error.is_builder() => {
                return Err(HostFailure::transport(host, error));
            }
            Ok(Err(error)) => {
                tracing::debug!(host, attempt, error = %error.without_url(), "request broke off");
            }
            Ok(Ok(response)) => {
                let status = response.status();
                let later = matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504);
                let asked = retry_after(response.headers());
                if !later || last || asked.is_some_and(|asked| asked > MAX_WAIT) {
                    return Ok(response);
                }
                delay = delay.max(asked.unwrap_or_default());
                tracing::debug!(host, attempt, %status, ?delay, "asking again");
            }
        }
        sleep(delay.mul_f64(rand::random_range(1.0..1.25))).await;
        delay = (delay * 2).min(MAX_WAIT);
    }
    Err(HostFailure::new(host, FailureKind::Down, "no attempt left"))
}

/// Retry-After in seconds; the date form is rare enough to be taken as absent.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}

/// Turns an answer with an error status into a failure, with what its body says.
pub(crate) async fn refusal(host: &str, response: Response, limits: &Limits) -> HostFailure {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        errors: Vec<Entry>,
        #[serde(default)]
        details: String,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let status = response.status();
    let delay = retry_after(response.headers());
    let body = read_body(host, response, MAX_ERROR_BODY, limits)
        .await
        .unwrap_or_default();
    let detail = match serde_json::from_slice::<Body>(&body) {
        Ok(body) if body.errors.is_empty() => body.details,
        Ok(body) => body
            .errors
            .iter()
            .map(|entry| {
                format!("{} {}", entry.code, entry.message)
                    .trim()
                    .to_owned()
            })
            .collect::<Vec<_>>()
            .join(", "),
        Err(_) => String::new(),
    };
    let detail: String = detail
        .chars()
        .filter(|c| !c.is_control())
        .take(300)
        .collect();
    HostFailure::status(host, status, delay, &detail)
}

/// Reads a whole body of at most `limit` bytes, all of which must come within the time-out.
pub(crate) async fn read_body(
    host: &str,
    response: Response,
    limit: u64,
    limits: &Limits,
) -> Result<Bytes, HostFailure> {
    let seconds = limits.progress.as_secs();
    let body = timeout(limits.progress, whole_body(host, response, limit));
    body.await.unwrap_or_else(|_| {
        let message = format!("an answer takes longer than {seconds} s");
        Err(HostFailure::new(host, FailureKind::Stalled, message))
    })
}

async fn whole_body(host: &str, mut response: Response, limit: u64) -> Result<Bytes, HostFailure> {
    let too_large = || {
        HostFailure::new(
            host,
            FailureKind::Invalid,
            format!("an answer of more than {limit} bytes"),
        )
    };
    if response
        .content_length()
        .is_some_and(|length| length > limit)
    {
        return Err(too_large());
    }
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Err(error) => return Err(HostFailure::transport(host, error)),
            Ok(None) => return Ok(body.freeze()),
            Ok(Some(chunk)) => {
                if (body.len() + chunk.len()) as u64 > limit {
                    return Err(too_large());
                }
                body.extend_from_slice(&chunk);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_seconds() {
        let mut headers = HeaderMap::new();
        assert_eq!(retry_after(&headers), None);
        headers.insert(RETRY_AFTER, "7".parse().unwrap());
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(7)));
        headers.insert(RETRY_AFTER, "Wed, 21 Oct 2015".parse().unwrap());
        assert_eq!(retry_after(&headers), None);
    }
}
