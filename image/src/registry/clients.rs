//! HTTP clients, one per set of TLS settings.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::{Certificate, Client, Identity, redirect};

use super::error::RegistryError;
use super::hosts::{HostConfig, TlsFiles, is_loopback};
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
#[derive(Debug, Default)]
pub(crate) struct Clients {
    made: Mutex<HashMap<Key, Client>>,
}

impl Clients {
    /// The client for a host. Reads files: not for async code.
    pub fn get(&self, host: &HostConfig) -> Result<Client, RegistryError> {
        let name = host.base.host_str().unwrap_or_default();
        let fail = |reason: String| RegistryError::Client {
            host: name.to_owned(),
            reason,
        };
        let pem = Pem::read(&host.tls).map_err(fail)?;
        let key = Key {
            files: pem.fingerprint(),
            skip_verify: host.tls.skip_verify,
            plain: host.base.scheme() == "http",
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
