//! Which hosts serve a registry: `certs.d/<host>/hosts.toml`, in containerd's format.
//!
//! Folders are looked for as `<host>_<port>_`, `<host>:<port>`, `<host>`, then `_default`; the first
//! that exists counts. A folder without `hosts.toml` may hold Docker's `*.crt` (authorities) and
//! `*.cert` with `*.key` (client certificates). The files are read anew for every pull.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

/// A `certs.d` folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    /// Not readable.
    #[error("cannot read {path}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not TOML, or not of the expected shape.
    #[error("malformed {path}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value that makes no sense.
    #[error("{path}: {what}")]
    Value {
        /// The file.
        path: PathBuf,
        /// What is wrong with which value.
        what: String,
    },
}

/// TLS settings of one host.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TlsFiles {
    /// Files of additional authorities.
    pub ca: Vec<PathBuf>,
    /// Client certificate and key; the key is in the same file where there is no second one.
    pub client: Option<(PathBuf, Option<PathBuf>)>,
    /// Accept any certificate.
    pub skip_verify: bool,
}

/// One host that may be asked.
#[derive(Debug, Clone)]
pub(crate) struct HostConfig {
    /// Where the API starts: ends in `/v2/`, or in what `override_path` says.
    pub base: Url,
    pub pull: bool,
    pub resolve: bool,
    pub tls: TlsFiles,
    pub headers: HeaderMap,
}

#[derive(Deserialize, Default)]
struct HostsFile {
    server: Option<String>,
    #[serde(default)]
    host: toml::Table,
    #[serde(flatten)]
    own: HostEntry,
}

#[derive(Deserialize, Default, Clone)]
struct HostEntry {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany>,
    client: Option<Client>,
    skip_verify: Option<bool>,
    header: Option<toml::Table>,
    override_path: Option<bool>,
}

#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum Client {
    One(String),
    Files(Vec<String>),
    Pairs(Vec<Vec<String>>),
}

/// The hosts to ask for images of `registry`, in order: mirrors first, the registry itself last.
pub(crate) fn hosts_for(
    config_dirs: &[PathBuf],
    registry: &str,
) -> Result<Vec<HostConfig>, HostsError> {
    for root in config_dirs {
        for name in folder_names(registry) {
            let dir = root.join(name);
            if dir.is_dir() {
                return read_folder(&dir, registry);
            }
        }
    }
    Ok(vec![default_host(registry)?])
}

fn folder_names(registry: &str) -> Vec<String> {
    let mut names = Vec::with_capacity(4);
    if let Some((host, port)) = registry.rsplit_once(':') {
        if port.bytes().all(|b| b.is_ascii_digit()) {
            names.push(format!("{host}_{port}_"));
        }
        names.push(registry.to_owned());
    } else {
        names.push(registry.to_owned());
    }
    names.push("_default".to_owned());
    names
}

fn default_host(registry: &str) -> Result<HostConfig, HostsError> {
    let host = if registry == "docker.io" {
        "registry-1.docker.io"
    } else {
        registry
    };
    let scheme = if is_loopback(registry) {
        "http"
    } else {
        "https"
    };
    let url = format!("{scheme}://{host}");
    Ok(HostConfig {
        base: api_base(&url, false).ok_or_else(|| HostsError::Value {
            path: PathBuf::new(),
            what: format!("{url:?} is no URL"),
        })?,
        pull: true,
        resolve: true,
        tls: TlsFiles::default(),
        headers: HeaderMap::new(),
    })
}

/// Whether a `host[:port]` is this machine: plain HTTP is fine, and no proxy is asked.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost"
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// `host[:port]` of a URL, as certs.d folders and messages name it.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn api_base(server: &str, override_path: bool) -> Option<Url> {
    let with_scheme = if server.contains("://") {
        server.to_owned()
    } else if is_loopback(server) {
        format!("http://{server}")
    } else {
        format!("https://{server}")
    };
    let mut url = Url::parse(&with_scheme).ok()?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return None;
    }
    let path = url.path().trim_end_matches('/').to_owned();
    let path = if override_path || path.ends_with("/v2") {
        path
    } else {
        format!("{path}/v2")
    };
    url.set_path(&format!("{path}/"));
    url.set_query(None);
    url.set_fragment(None);
    Some(url)
}

fn read_folder(dir: &Path, registry: &str) -> Result<Vec<HostConfig>, HostsError> {
    let path = dir.join("hosts.toml");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut host = default_host(registry)?;
            host.tls = docker_style_certificates(dir)?;
            return Ok(vec![host]);
        }
        Err(source) => return Err(HostsError::Read { path, source }),
    };
    let file: HostsFile = toml::from_str(&text).map_err(|source| HostsError::Toml {
        path: path.clone(),
        source: Box::new(source),
    })?;
    let context = Context { dir, path: &path };
    let mut hosts = Vec::with_capacity(file.host.len() + 1);
    for (url, value) in file.host {
        let entry: HostEntry = value.try_into().map_err(|source| HostsError::Toml {
            path: path.clone(),
            source: Box::new(source),
        })?;
        hosts.push(context.host(&url, &entry)?);
    }
    let server = match &file.server {
        Some(server) if !server.is_empty() => context.host(server, &file.own)?,
        _ => {
            let default = default_host(registry)?;
            HostConfig {
                base: default.base.clone(),
                ..context.host(default.base.as_str(), &file.own)?
            }
        }
    };
    hosts.push(server);
    Ok(hosts)
}

struct Context<'a> {
    dir: &'a Path,
    path: &'a Path,
}

impl Context<'_> {
    fn value(&self, what: String) -> HostsError {
        HostsError::Value {
            path: self.path.to_owned(),
            what,
        }
    }

    fn host(&self, url: &str, entry: &HostEntry) -> Result<HostConfig, HostsError> {
        let base = api_base(url, entry.override_path.unwrap_or(false))
            .ok_or_else(|| self.value(format!("{url:?} is no http or https URL")))?;
        let (pull, resolve) = match &entry.capabilities {
            None => (true, true),
            Some(list) => {
                let known = ["pull", "resolve", "push", "referrers"];
                if let Some(bad) = list.iter().find(|name| !known.contains(&name.as_str())) {
                    return Err(self.value(format!("unknown capability {bad:?}")));
                }
                let has = |name: &str| list.iter().any(|entry| entry == name);
                (has("pull"), has("resolve"))
            }
        };
        Ok(HostConfig {
            base,
            pull,
            resolve,
            tls: self.tls(entry)?,
            headers: self.headers(entry.header.as_ref())?,
        })
    }

    fn tls(&self, entry: &HostEntry) -> Result<TlsFiles, HostsError> {
        let ca = match &entry.ca {
            None => Vec::new(),
            Some(OneOrMany::One(file)) => vec![self.dir.join(file)],
            Some(OneOrMany::Many(files)) => files.iter().map(|f| self.dir.join(f)).collect(),
        };
        let pair = |files: &[String]| match files {
            [] => Ok(None),
            [cert] => Ok(Some((self.dir.join(cert), None))),
            [cert, key] if key.is_empty() => Ok(Some((self.dir.join(cert), None))),
            [cert, key] => Ok(Some((self.dir.join(cert), Some(self.dir.join(key))))),
            _ => Err(self.value("a client is one file or a pair of files".to_owned())),
        };
        let client = match &entry.client {
            None => None,
            Some(Client::One(file)) => pair(std::slice::from_ref(file))?,
            // Of several client certificates the first is presented.
            Some(Client::Files(files)) => pair(&files[..files.len().min(1)])?,
            Some(Client::Pairs(pairs)) => pair(pairs.first().map_or(&[], Vec::as_slice))?,
        };
        Ok(TlsFiles {
            ca,
            client,
            skip_verify: entry.skip_verify.unwrap_or(false),
        })
    }

    fn headers(&self, table: Option<&toml::Table>) -> Result<HeaderMap, HostsError> {
        let mut headers = HeaderMap::new();
        for (name, value) in table.into_iter().flatten() {
            let parsed = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| self.value(format!("malformed header name {name:?}")))?;
            let values = match value {
                toml::Value::String(one) => vec![one.as_str()],
                toml::Value::Array(many) => many.iter().filter_map(toml::Value::as_str).collect(),
                _ => return Err(self.value(format!("header {name:?} is no string or list"))),
            };
            for value in values {
                // The value may be a secret: it is neither shown nor logged.
                let mut value = HeaderValue::from_str(value)
                    .map_err(|_| self.value(format!("malformed value of header {name:?}")))?;
                value.set_sensitive(true);
                headers.append(parsed.clone(), value);
            }
        }
        Ok(headers)
    }
}

fn docker_style_certificates(dir: &Path) -> Result<TlsFiles, HostsError> {
    let read = |source| HostsError::Read {
        path: dir.to_owned(),
        source,
    };
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(dir).map_err(read)? {
        files.insert(entry.map_err(read)?.path());
    }
    let with = |extension: &str| {
        files
            .iter()
            .filter(|f| f.extension().is_some_and(|e| e == extension))
            .cloned()
            .collect::<Vec<_>>()
    };
    let client = with("cert")
        .into_iter()
        .map(|cert| {
            let key = cert.with_extension("key");
            (cert, Some(key))
        })
        .find(|(_, key)| key.as_ref().is_some_and(|key| files.contains(key)));
    Ok(TlsFiles {
        ca: with("crt"),
        client,
        skip_verify: false,
    })
}

#[cfg(test)]
#[path = "hosts_tests.rs"]
mod tests;
