//! HTTP clients, one per set of TLS settings.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::{Certificate, Client, Identity, Url, redirect};

use super::error::{FailureKind, HostFailure, RegistryError, chain};
use super::hosts::{self, TlsFiles, is_loopback};
use crate::digest::Digest;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_CLIENTS: usize = 32;

/// What tells two clients apart.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    /// Of the contents of all files, so that a renewed certificate counts at the next pull.
    files: Digest,
    skip_verify: bool,
    plain: bool,
    proxy: bool,
}

/// Makes clients and keeps them: loading the system's trust store takes milliseconds.
#[derive(Debug)]
pub(crate) struct Clients {
    config_dirs: Vec<PathBuf>,
    made: Mutex<HashMap<Key, Client>>,
}

impl Clients {
    pub fn new(config_dirs: Vec<PathBuf>) -> Self {
        Self {
            config_dirs,
            made: Mutex::default(),
        }
    }

    /// The hosts of a registry: mirrors first, the registry itself last. Reads files: not for async
    /// code.
    pub fn hosts_for(&self, registry: &str) -> Result<Vec<hosts::HostConfig>, RegistryError> {
        Ok(hosts::hosts_for(&self.config_dirs, registry)?)
    }

    /// The client for a host with these settings. Reads files: not for async code.
    pub fn get(&self, url: &Url, tls: &TlsFiles) -> Result<Client, RegistryError> {
        let name = url.host_str().unwrap_or_default();
        let fail = |reason: String| RegistryError::Client {
            host: name.to_owned(),
            reason,
        };
        let pem = Pem::read(tls).map_err(fail)?;
        let key = Key {
            files: pem.fingerprint(),
            skip_verify: tls.skip_verify,
            plain: url.scheme() == "http",
            proxy: !is_loopback(name),
        };
        if let Some(client) = self.made.lock().get(&key) {
            return Ok(client.clone());
        }
        let client = build(&key, &pem).map_err(fail)?;
        let mut made = self.made.lock();
        if made.len() >= MAX_CLIENTS {
            made.clear();
        }
        made.insert(key, client.clone());
        Ok(client)
    }
}

/// The clients of one host, and of the hosts it sends us to: token servers and blob stores.
///
/// A client certificate and a waived verification are the operator's word about one host. Another host
/// gets what its own `certs.d` folder says; only the additional authorities go along, since a private
/// authority usually signs for the token server and the blob store, too.
#[derive(Debug)]
pub(crate) struct HostClients {
    clients: Arc<Clients>,
    home: Url,
    own: Client,
    ca: Vec<PathBuf>,
    /// By scheme, host and port.
    elsewhere: Mutex<HashMap<String, Client>>,
}

impl HostClients {
    /// Reads files: not for async code.
    pub fn new(clients: Arc<Clients>, home: Url, tls: TlsFiles) -> Result<Self, RegistryError> {
        Ok(Self {
            own: clients.get(&home, &tls)?,
            clients,
            home,
            ca: tls.ca,
            elsewhere: Mutex::default(),
        })
    }

    /// The client for the host itself.
    pub fn own(&self) -> &Client {
        &self.own
    }

    /// The client for a URL that the host named.
    pub async fn for_url(&self, url: &Url) -> Result<Client, HostFailure> {
        if url.origin() == self.home.origin() {
            return Ok(self.own.clone());
        }
        let origin = url.origin().ascii_serialization();
        if let Some(client) = self.elsewhere.lock().get(&origin) {
            return Ok(client.clone());
        }
        let (clients, ca, target) = (Arc::clone(&self.clients), self.ca.clone(), url.clone());
        let made = tokio::task::spawn_blocking(move || foreign(&clients, &target, ca)).await;
        let invalid = |reason: String| {
            HostFailure::new(
                hosts::authority(url),
                FailureKind::Invalid,
                format!("cannot set up the connection: {reason}"),
            )
        };
        let client = made
            .map_err(|error| invalid(chain(&error)))?
            .map_err(|error| invalid(chain(&error)))?;
        self.elsewhere.lock().insert(origin, client.clone());
        Ok(client)
    }
}

fn foreign(clients: &Clients, url: &Url, ca: Vec<PathBuf>) -> Result<Client, RegistryError> {
    let configured = clients.hosts_for(&hosts::authority(url))?;
    // Its folder, or `_default`, may name other hosts, too.
    let own = configured
        .into_iter()
        .rfind(|host| host.base.origin() == url.origin());
    let mut tls = own.map(|host| host.tls).unwrap_or_default();
    tls.ca.extend(ca);
    clients.get(url, &tls)
}

struct Pem {
    ca: Vec<Vec<u8>>,
    client: Option<Vec<u8>>,
}

impl Pem {
    fn read(tls: &TlsFiles) -> Result<Self, String> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        let ca = tls
            .ca
            .iter()
            .map(|path| read(path))
            .collect::<Result<_, _>>()?;
        let client = match &tls.client {
            None => None,
            Some((certificate, key)) => {
                let mut pem = read(certificate)?;
                if let Some(key) = key {
                    pem.push(b'\n');
                    pem.extend(read(key)?);
                }
                Some(pem)
            }
        };
        Ok(Self { ca, client })
    }

    fn fingerprint(&self) -> Digest {
        let mut all = Vec::new();
        for part in self.ca.iter().chain(&self.client) {
            all.extend(part.len().to_le_bytes());
            all.extend(part);
        }
        Digest::of(&all)
    }
}

fn build(key: &Key, pem: &Pem) -> Result<Client, String> {
    install_crypto();
    let mut roots = Vec::new();
    for ca in &pem.ca {
        let parsed = Certificate::from_pem_bundle(ca).map_err(|e| format!("bad ca file: {e}"))?;
        roots.extend(parsed);
    }
    let identity = match &pem.client {
        None => None,
        Some(pem) => {
            Some(Identity::from_pem(pem).map_err(|e| format!("bad client certificate: {e}"))?)
        }
    };
    let builder = || {
        let mut builder = Client::builder()
            .user_agent(concat!("joey/", env!("CARGO_PKG_VERSION")))
            // Redirects are followed by the transport, which knows what must not travel along.
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .http2_adaptive_window(true)
            .tls_danger_accept_invalid_certs(key.skip_verify);
        if !key.proxy {
            builder = builder.no_proxy();
        }
        if let Some(identity) = identity.clone() {
            builder = builder.identity(identity);
        }
        builder
    };
    let built = builder().tls_certs_merge(roots.clone()).build();
    match built {
        // A machine without any trust store can still speak plain HTTP.
        Err(_) if key.plain => builder().tls_certs_only(roots).build(),
        other => other,
    }
    .map_err(|error| error.to_string())
}

/// reqwest takes the process's provider; the first to be installed stays.
fn install_crypto() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that someone else was quicker, which is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
}
