//! The registry client: OCI distribution-spec v1.1 and Docker's registry API V2, reading only.

mod blob;
pub(crate) mod challenge;
mod clients;
mod error;
pub(crate) mod hosts;
mod token;
mod transport;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode};

pub use error::{Failures, RegistryError};
pub use hosts::HostsError;

use crate::auth::{Credentials, Secret};
use crate::digest::Digest;
use crate::manifest;
use crate::reference::{Reference, Target};
use clients::{Clients, HostClients};
use error::{FailureKind, HostFailure};
use token::Authorizer;
use transport::{Endpoint, Limits};

const DIGEST_HEADER: &str = "docker-content-digest";

/// All registries; what is shared between pulls.
#[derive(Debug)]
pub(crate) struct Registries {
    clients: Arc<Clients>,
    limits: Limits,
}

/// One repository, with one caller's credentials, for the time of one pull.
#[derive(Debug)]
pub(crate) struct Session {
    reference: Reference,
    hosts: Vec<Arc<Host>>,
    limits: Limits,
}

#[derive(Debug)]
struct Host {
    endpoint: Endpoint,
    pull: bool,
    resolve: bool,
    /// How often it failed in this session; hosts with fewer failures are asked first.
    failures: AtomicU32,
}

/// A manifest or index as the registry gave it.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    pub digest: Digest,
    pub media_type: String,
    pub bytes: Bytes,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Capability {
    Resolve,
    Pull,
}

impl Registries {
    pub fn new(config_dirs: Vec<PathBuf>, progress_timeout: Duration) -> Self {
        Self {
            clients: Arc::new(Clients::new(config_dirs)),
            limits: Limits {
                progress: progress_timeout,
            },
        }
    }

    /// Prepares to ask for one repository. Reads files: not for async code.
    pub fn session(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
    ) -> Result<Session, RegistryError> {
        let registry = reference.host();
        let mut hosts = Vec::new();
        for config in self.clients.hosts_for(registry)? {
            let name = hosts::authority(&config.base);
            let own = name == registry
                || (registry == "docker.io" && name == "registry-1.docker.io")
                || registry.strip_suffix(":443") == Some(&name)
                || registry.strip_suffix(":80") == Some(&name);
            // A mirror gets what the registry would, but never in the clear.
            let clear = config.base.scheme() == "http"
                && !hosts::is_loopback(config.base.host_str().unwrap_or_default());
            let secret = match credentials {
                Some(given) if !own && clear && given.server_address.is_empty() => {
                    Secret::Anonymous
                }
                Some(credentials) => credentials.secret_for(if own { registry } else { &name })?,
                None => Secret::Anonymous,
            };
            let clients = Arc::clone(&self.clients);
            let clients = HostClients::new(clients, config.base.clone(), config.tls)?;
            hosts.push(Arc::new(Host {
                endpoint: Endpoint {
                    base: config.base,
                    clients,
                    headers: config.headers,
                    authorizer: Authorizer::new(secret, reference.path()),
                    namespace: (!own).then(|| registry.to_owned()),
                },
                pull: config.pull,
                resolve: config.resolve,
                failures: AtomicU32::new(0),
            }));
        }
        Ok(Session {
            reference: reference.clone(),
            hosts,
            limits: self.limits.clone(),
        })
    }
}

impl Session {
    fn hosts(&self, capability: Capability) -> Vec<Arc<Host>> {
        let mut hosts: Vec<_> = self
            .hosts
            .iter()
            .filter(|host| match capability {
                Capability::Resolve => host.resolve,
                Capability::Pull => host.pull,
            })
            .cloned()
            .collect();
        hosts.sort_by_key(|host| host.failures.load(Ordering::Relaxed));
        hosts
    }

    /// Asks the registry which manifest the reference means, with the caller's credentials. `None`:
    /// the registry would only say so together with the manifest itself.
    pub async fn head(&self) -> Result<Option<Digest>, RegistryError> {
        let (path, capability) = self.manifest_path(self.reference.target());
        let mut failures = Failures::default();
        for host in self.hosts(capability) {
            let answer = host
                .endpoint
                .request(Method::HEAD, &path, accept(), &self.limits)
                .await;
            match answer {
                Ok(response) => return Ok(digest_of(&response)),
                Err(failure) if failure.status == Some(StatusCode::METHOD_NOT_ALLOWED) => {
                    return Ok(None);
                }
                Err(failure) => host.failed(failure, &mut failures),
            }
        }
        Err(failures.into_error(format!("resolve {}", self.reference)))
    }

    /// Fetches the manifest or index that the reference means.
    pub async fn resolve(&self) -> Result<Fetched, RegistryError> {
        self.manifest(self.reference.target()).await
    }

    /// Fetches a manifest or index of the repository.
    pub async fn manifest(&self, target: &Target) -> Result<Fetched, RegistryError> {
        let (path, capability) = self.manifest_path(target);
        let mut failures = Failures::default();
        for host in self.hosts(capability) {
            match self.manifest_at(&host.endpoint, &path, target).await {
                Ok(fetched) => return Ok(fetched),
                Err(failure) => host.failed(failure, &mut failures),
            }
        }
        Err(failures.into_error(format!("fetch the manifest of {}", self.reference)))
    }

    /// Asks the registry itself, not its mirrors, whether it takes the caller's credentials.
    pub async fn check_login(&self) -> Result<(), RegistryError> {
        let mut failures = Failures::default();
        for host in &self.hosts {
            if host.endpoint.namespace.is_some() {
                continue;
            }
            let answer = host
                .endpoint
                .request(Method::GET, "", HeaderMap::new(), &self.limits)
                .await;
            match answer {
                Ok(_) => return Ok(()),
                Err(failure) => host.failed(failure, &mut failures),
            }
        }
        Err(failures.into_error(format!("log in to {}", self.reference.host())))
    }

    fn manifest_path(&self, target: &Target) -> (String, Capability) {
        let path = self.reference.path();
        match target {
            Target::Tag(tag) => (format!("{path}/manifests/{tag}"), Capability::Resolve),
            // What a digest means needs no trust in the host.
            Target::Digest(digest) => (format!("{path}/manifests/{digest}"), Capability::Pull),
        }
    }

    async fn manifest_at(
        &self,
        endpoint: &Endpoint,
        path: &str,
        target: &Target,
    ) -> Result<Fetched, HostFailure> {
        let response = endpoint
            .request(Method::GET, path, accept(), &self.limits)
            .await?;
        let promised = digest_of(&response);
        let media_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let name = endpoint.name();
        let bytes =
            transport::read_body(&name, response, manifest::MAX_MANIFEST, &self.limits).await?;
        let digest = Digest::of(&bytes);
        let wanted = match target {
            Target::Digest(digest) => Some(*digest),
            Target::Tag(_) => promised,
        };
        if wanted.is_some_and(|wanted| wanted != digest) {
            return Err(HostFailure::new(
                name,
                FailureKind::Invalid,
                "the manifest does not have the digest asked for",
            ));
        }
        Ok(Fetched {
            digest,
            media_type,
            bytes,
        })
    }
}

impl Host {
    fn failed(&self, failure: HostFailure, failures: &mut Failures) {
        if matches!(failure.kind, FailureKind::Down | FailureKind::Stalled) {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        failures.push(failure);
    }
}

fn accept() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(
        reqwest::header::ACCEPT,
        HeaderValue::from_static(manifest::ACCEPT),
    );
    headers
}

fn digest_of(response: &Response) -> Option<Digest> {
    response
        .headers()
        .get(DIGEST_HEADER)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}
