//! What can go wrong at a registry, and what it means to the caller.

use std::fmt;
use std::time::Duration;

use joey_p2p::{FetchError, FetchErrorKind};
use reqwest::StatusCode;

use super::hosts::HostsError;
use crate::auth::CredentialsError;

/// Why a registry did not give what was asked for.
///
/// The kubelet recognises `RegistryUnavailable` at the start of the text.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No host of the registry could be reached, or all of them failed inside.
    #[error("RegistryUnavailable: cannot {operation}: {failures}")]
    Unavailable {
        /// What was tried, as a verb phrase.
        operation: String,
        /// What each host said.
        failures: Failures,
    },
    /// The registry has no such thing, or hides it from this caller.
    #[error("cannot {operation}: not found: {failures}")]
    NotFound {
        /// What was tried.
        operation: String,
        /// What each host said.
        failures: Failures,
    },
    /// The credentials, or their absence, do not suffice.
    #[error("cannot {operation}: access denied: {failures}")]
    Denied {
        /// What was tried.
        operation: String,
        /// What each host said.
        failures: Failures,
    },
    /// Too many requests.
    #[error("cannot {operation}: rate limited by the registry: {failures}")]
    RateLimited {
        /// What was tried.
        operation: String,
        /// What each host said.
        failures: Failures,
    },
    /// Anything else a host answered.
    #[error("cannot {operation}: {failures}")]
    Failed {
        /// What was tried.
        operation: String,
        /// What each host said.
        failures: Failures,
    },
    /// The operator's host configuration.
    #[error(transparent)]
    Hosts(#[from] HostsError),
    /// The caller's credentials.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// A TLS client could not be made for a host.
    #[error("cannot set up the connection to {host}: {reason}")]
    Client {
        /// The host.
        host: String,
        /// Why, naming the file at fault.
        reason: String,
    },
}

/// What the hosts of a registry said, in the order they were asked.
#[derive(Debug, Default)]
pub struct Failures(Vec<HostFailure>);

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no configured host has the capability for it");
        }
        for (index, failure) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{failure}")?;
        }
        Ok(())
    }
}

impl Failures {
    pub(crate) fn push(&mut self, failure: HostFailure) {
        self.0.push(failure);
    }

    /// The failure that says most: that of the last host that answered for itself.
    fn telling(&self) -> Option<&HostFailure> {
        let down = |failure: &&HostFailure| failure.kind == FailureKind::Down;
        self.0
            .iter()
            .rev()
            .find(|failure| !down(failure))
            .or_else(|| self.0.last())
    }

    /// The error of an operation that no host could do.
    pub(crate) fn into_error(self, operation: String) -> RegistryError {
        let failures = self;
        match failures.telling().map(|failure| failure.kind) {
            Some(FailureKind::Down | FailureKind::Stalled) => RegistryError::Unavailable {
                operation,
                failures,
            },
            Some(FailureKind::NotFound) => RegistryError::NotFound {
                operation,
                failures,
            },
            Some(FailureKind::Denied) => RegistryError::Denied {
                operation,
                failures,
            },
            Some(FailureKind::RateLimited(_)) => RegistryError::RateLimited {
                operation,
                failures,
            },
            Some(FailureKind::Invalid) | None => RegistryError::Failed {
                operation,
                failures,
            },
        }
    }

    /// The same as an error of a blob source.
    pub(crate) fn into_fetch_error(self, digest: &str) -> FetchError {
        let kind = match self.telling().map(|failure| failure.kind) {
            Some(FailureKind::Down) => FetchErrorKind::Interrupted,
            Some(FailureKind::NotFound) => FetchErrorKind::NotFound,
            Some(FailureKind::Denied) => FetchErrorKind::Denied,
            Some(FailureKind::RateLimited(retry_after)) => {
                FetchErrorKind::RateLimited { retry_after }
            }
            Some(FailureKind::Stalled) => FetchErrorKind::Stalled,
            Some(FailureKind::Invalid) | None => FetchErrorKind::Invalid,
        };
        FetchError::new(
            kind,
            self.into_error(format!("fetch blob {digest}")).to_string(),
        )
    }
}

/// What a failure of one host means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// Not reachable, or failing inside (5xx).
    Down,
    NotFound,
    Denied,
    RateLimited(Option<Duration>),
    /// Too few bytes within the progress time-out.
    Stalled,
    /// An answer that is not what was asked for.
    Invalid,
}

/// The failure of one host. The text holds no credentials and no query of a URL.
#[derive(Debug)]
pub(crate) struct HostFailure {
    pub host: String,
    pub kind: FailureKind,
    /// The answer's status, where there was an answer.
    pub status: Option<StatusCode>,
    pub message: String,
}

impl fmt::Display for HostFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.host, self.message)
    }
}

impl HostFailure {
    pub fn new(host: impl Into<String>, kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            kind,
            status: None,
            message: message.into(),
        }
    }

    /// A request that got no answer.
    pub fn transport(host: &str, error: reqwest::Error) -> Self {
        // The URL may be a pre-signed one.
        Self::new(host, FailureKind::Down, chain(&error.without_url()))
    }

    /// An answer with an error status; `detail` is what the body says.
    pub fn status(
        host: &str,
        status: StatusCode,
        retry_after: Option<Duration>,
        detail: &str,
    ) -> Self {
        let kind = match status.as_u16() {
            401 | 403 => FailureKind::Denied,
            404 => FailureKind::NotFound,
            429 => FailureKind::RateLimited(retry_after),
            408 | 500..=599 => FailureKind::Down,
            _ => FailureKind::Invalid,
        };
        let mut message = status.to_string();
        if !detail.is_empty() {
            message = format!("{message}: {detail}");
        }
        if let (FailureKind::RateLimited(_), Some(delay)) = (kind, retry_after) {
            message = format!("{message} (try again in {} s)", delay.as_secs());
        }
        Self {
            status: Some(status),
            ..Self::new(host, kind, message)
        }
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(kinds: &[FailureKind]) -> RegistryError {
        let mut all = Failures::default();
        for kind in kinds {
            all.push(HostFailure::new("h", *kind, "m"));
        }
        all.into_error("resolve a".into())
    }

    #[test]
    fn only_silence_everywhere_is_unavailable() {
        use FailureKind::{Denied, Down, NotFound, RateLimited};
        let text = failures(&[Down, Down]).to_string();
        assert!(text.starts_with("RegistryUnavailable"), "{text}");
        assert!(matches!(
            failures(&[NotFound, Down]),
            RegistryError::NotFound { .. }
        ));
        assert!(matches!(
            failures(&[NotFound, Denied]),
            RegistryError::Denied { .. }
        ));
        let limited = failures(&[Down, RateLimited(None)]).to_string();
        assert!(limited.contains("rate limited"), "{limited}");
        assert!(matches!(failures(&[]), RegistryError::Failed { .. }));
    }
}
