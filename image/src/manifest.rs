//! Manifests, indexes and image configs: what is read of them, and what is refused.
//!
//! Specifications: OCI image-spec v1.1 (`manifest.md`, `image-index.md`, `config.md`) and Docker's
//! image manifest V2 schema 2.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::digest::{Digest, DigestError};
use crate::platform::{HostPlatform, Platform};
use crate::shown;

/// Largest manifest or index read, in bytes.
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;
/// Largest image config read, in bytes.
pub(crate) const MAX_CONFIG: u64 = 4 << 20;
/// Most that is kept in memory of what a config says about containers, in bytes.
const MAX_SETTINGS: u64 = 1 << 20;
/// Platforms named when none of an index fits.
const MAX_OFFERED: usize = 20;
/// What a text takes besides its bytes.
const TEXT_COST: u64 = 48;
/// Overlayfs takes 500 lower layers.
const MAX_LAYERS: usize = 500;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// The `Accept` header of manifest requests.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1";

/// A manifest, index or config that is malformed or not supported.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or not of the shape its media type promises.
    #[error("malformed {what}")]
    Json {
        /// Which document.
        what: &'static str,
        /// The parser's words.
        #[source]
        source: serde_json::Error,
    },
    /// Docker's first manifest format, which cannot be verified by digest.
    #[error("manifest schema version 1 is not supported: push the image again with a current tool")]
    Schema1,
    /// A document that claims to be both an index and a manifest (CVE-2021-41190).
    #[error("ambiguous document: it has both manifests and layers")]
    Ambiguous,
    /// A media type we do not know.
    #[error("unsupported manifest media type {0:?}")]
    MediaType(String),
    /// A layer that is no tar, or compressed in an unknown way.
    #[error("unsupported layer media type {media_type:?} (layer {digest})")]
    LayerType {
        /// The layer's digest.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },
    /// A layer that has to be fetched from a URL in the manifest.
    #[error("layer {0} is a foreign layer: URLs in manifests are not followed")]
    ForeignLayer(Digest),
    /// Nothing in the index runs here.
    #[error("no image for {host} in the index (it has: {offered})")]
    NoPlatform {
        /// This machine's platform.
        host: String,
        /// The platforms in the index.
        offered: String,
    },
    /// The config is for another platform.
    #[error("the image is for {image}, this machine is {host}")]
    WrongPlatform {
        /// The image's platform.
        image: String,
        /// This machine's.
        host: String,
    },
    /// Indexes nested too deeply.
    #[error("indexes nested more than {0} deep")]
    TooDeep(usize),
    /// The config lists another number of layers than the manifest.
    #[error("the manifest has {manifest} layers, the config {config}")]
    LayerCount {
        /// Layers in the manifest.
        manifest: usize,
        /// `rootfs.diff_ids` in the config.
        config: usize,
    },
    /// More layers than overlayfs can stack.
    #[error("{0} layers; at most {MAX_LAYERS} are supported")]
    TooManyLayers(usize),
    /// Larger than we are willing to read.
    #[error("{what} of {size} bytes; at most {limit} are read")]
    TooLarge {
        /// Which document.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// The bound in bytes.
        limit: u64,
    },
    /// A digest in the document.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

/// A pointer to a blob.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Descriptor {
    #[serde(rename = "mediaType", default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default)]
    pub platform: Option<Platform>,
}

/// A manifest of one image.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
    /// Whether the config is an image config, not some artifact's.
    pub is_image: bool,
}

/// What a manifest request gave.
#[derive(Debug, Clone)]
pub(crate) enum Document {
    Index(Vec<Descriptor>),
    Manifest(Manifest),
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "schemaVersion", default)]
    schema_version: u64,
    #[serde(rename = "mediaType", default)]
    media_type: String,
    #[serde(default)]
    manifests: Option<Entries>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
}

/// The usable entries of an index. One for a platform or with a digest that we do not know is not
/// ours to refuse.
struct Entries(Vec<Descriptor>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of manifests")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Entries, A::Error> {
        #[derive(Deserialize)]
        struct Entry {
            #[serde(rename = "mediaType", default)]
            media_type: String,
            #[serde(default)]
            digest: String,
            #[serde(default)]
            size: u64,
            #[serde(default)]
            platform: Option<Platform>,
        }
        let mut known = Vec::new();
        while let Some(entry) = entries.next_element::<Entry>()? {
            if let Ok(digest) = entry.digest.parse() {
                known.push(Descriptor {
                    media_type: entry.media_type,
                    digest,
                    size: entry.size,
                    platform: entry.platform,
                });
            }
        }
        Ok(Entries(known))
    }
}

/// Reads a manifest or index; `content_type` is what the registry called it.
pub(crate) fn parse(bytes: &[u8], content_type: &str) -> Result<Document, ManifestError> {
    let json = |source| ManifestError::Json {
        what: "manifest",
        source,
    };
    let raw: Raw = serde_json::from_slice(bytes).map_err(json)?;
    let content_type = content_type.split(';').next().unwrap_or_default().trim();
    let media_type = if raw.media_type.is_empty() {
        content_type
    } else {
        raw.media_type.as_str()
    };
    if raw.schema_version == 1 || media_type.contains("manifest.v1+") && is_docker(media_type) {
        return Err(ManifestError::Schema1);
    }
    match (raw.manifests, raw.config, raw.layers) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => Err(ManifestError::Ambiguous),
        (Some(_), ..) if matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST) => {
            Err(ManifestError::Ambiguous)
        }
        (Some(entries), None, None) => Ok(Document::Index(entries.0)),
        (None, Some(_), _) if matches!(media_type, OCI_INDEX | DOCKER_LIST) => {
            Err(ManifestError::Ambiguous)
        }
        (None, Some(config), layers) => manifest(config, layers.unwrap_or_default()),
        (None, None, _) => Err(ManifestError::MediaType(shown(media_type))),
    }
}

fn is_docker(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.docker.")
}

fn manifest(config: Descriptor, layers: Vec<Descriptor>) -> Result<Document, ManifestError> {
    if layers.len() > MAX_LAYERS {
        return Err(ManifestError::TooManyLayers(layers.len()));
    }
    for layer in &layers {
        layer.check_layer()?;
    }
    let is_image = matches!(config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG | "");
    Ok(Document::Manifest(Manifest {
        config,
        layers,
        is_image,
    }))
}

impl Descriptor {
    /// Whether it points to another index.
    pub fn is_index(&self) -> bool {
        matches!(self.media_type.as_str(), OCI_INDEX | DOCKER_LIST)
    }

    fn is_manifest(&self) -> bool {
        matches!(self.media_type.as_str(), OCI_MANIFEST | DOCKER_MANIFEST)
    }

    /// Refuses what is no tar or not in the registry. How the tar is compressed is read from its
    /// first bytes, as media types are not always right about it.
    fn check_layer(&self) -> Result<(), ManifestError> {
        let kind = self.media_type.as_str();
        if kind.contains(".foreign.") || kind.contains(".nondistributable.") {
            return Err(ManifestError::ForeignLayer(self.digest));
        }
        let base = match kind.rsplit_once(['+', '.']) {
            Some((base, "gzip" | "zstd")) => base,
            _ => kind,
        };
        if base.ends_with(".tar") || matches!(base, "application/x-tar" | "application/tar") {
            Ok(())
        } else {
            Err(ManifestError::LayerType {
                digest: self.digest,
                media_type: shown(&self.media_type),
            })
        }
    }
}

/// Picks the entry of an index that fits this machine best: a manifest, or a nested index.
pub(crate) fn select<'a>(
    entries: &'a [Descriptor],
    host: &HostPlatform,
) -> Result<&'a Descriptor, ManifestError> {
    let ranked = entries
        .iter()
        .filter(|entry| entry.is_manifest())
        .filter_map(|entry| Some((host.rank(entry.platform.as_ref()?)?, entry)))
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, entry)| entry);
    let without_platform = || {
        entries
            .iter()
            .find(|entry| entry.platform.is_none() && (entry.is_manifest() || entry.is_index()))
    };
    ranked
        .or_else(|| entries.iter().find(|entry| entry.is_index()))
        .or_else(without_platform)
        .ok_or_else(|| ManifestError::NoPlatform {
            host: host.to_string(),
            offered: entries
                .iter()
                .filter_map(|entry| entry.platform.as_ref())
                .take(MAX_OFFERED)
                .map(|platform| shown(&platform.to_string()))
                .collect::<Vec<_>>()
                .join(", "),
        })
}

/// The part of an image config that containers are made from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ContainerConfig {
    /// `user[:group]`, each a name or a number.
    #[serde(rename = "User", default, deserialize_with = "null_is_default")]
    pub user: String,
    /// `NAME=value` pairs.
    #[serde(rename = "Env", default, deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// Entrypoint, in exec form.
    #[serde(rename = "Entrypoint", default, deserialize_with = "null_is_default")]
    pub entrypoint: Vec<String>,
    /// Default arguments, or the command where there is no entrypoint.
    #[serde(rename = "Cmd", default, deserialize_with = "null_is_default")]
    pub cmd: Vec<String>,
    /// Working directory; empty means `/`.
    #[serde(rename = "WorkingDir", default, deserialize_with = "null_is_default")]
    pub working_dir: String,
    /// Labels.
    #[serde(rename = "Labels", default, deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    /// Signal that stops the container, by name or number; empty means SIGTERM.
    #[serde(rename = "StopSignal", default, deserialize_with = "null_is_default")]
    pub stop_signal: String,
    /// `port/protocol` entries.
    #[serde(rename = "ExposedPorts", default, deserialize_with = "keys")]
    pub exposed_ports: BTreeSet<String>,
    /// Paths that the image wants to be volumes.
    #[serde(rename = "Volumes", default, deserialize_with = "keys")]
    pub volumes: BTreeSet<String>,
}

impl ContainerConfig {
    /// About what it takes in memory, in bytes.
    fn memory(&self) -> u64 {
        let lists = [&self.env, &self.entrypoint, &self.cmd];
        let sets = [&self.exposed_ports, &self.volumes];
        let labels = self.labels.iter().flat_map(|(key, value)| [key, value]);
        let texts = [&self.user, &self.working_dir, &self.stop_signal]
            .into_iter()
            .chain(lists.into_iter().flatten())
            .chain(sets.into_iter().flatten())
            .chain(labels);
        texts.map(|text| TEXT_COST + text.len() as u64).sum()
    }
}

/// A parsed image config.
#[derive(Debug, Clone, Default)]
pub(crate) struct ImageConfigFile {
    pub container: ContainerConfig,
    pub created: Option<String>,
    pub author: Option<String>,
    pub platform: Platform,
    pub diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    variant: String,
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    author: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    config: ContainerConfig,
    #[serde(default, deserialize_with = "null_is_default")]
    rootfs: RawRootfs,
}

#[derive(Default, Deserialize)]
struct RawRootfs {
    #[serde(default, deserialize_with = "null_is_default")]
    diff_ids: Vec<Digest>,
}

impl ImageConfigFile {
    /// Reads a config.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let raw: RawConfig =
            serde_json::from_slice(bytes).map_err(|source| ManifestError::Json {
                what: "image config",
                source,
            })?;
        let size = raw.config.memory();
        if size > MAX_SETTINGS {
            return Err(ManifestError::TooLarge {
                what: "settings for containers",
                size,
                limit: MAX_SETTINGS,
            });
        }
        Ok(Self {
            container: raw.config,
            created: raw.created.filter(|text| !text.is_empty()),
            author: raw.author.filter(|text| !text.is_empty()),
            platform: Platform {
                architecture: raw.architecture,
                os: raw.os,
                variant: raw.variant,
            },
            diff_ids: raw.rootfs.diff_ids,
        })
    }

    /// Checks that the config belongs to a manifest of `layers` layers and to this machine.
    pub fn check(&self, layers: usize, host: &HostPlatform) -> Result<(), ManifestError> {
        if self.diff_ids.len() != layers {
            return Err(ManifestError::LayerCount {
                manifest: layers,
                config: self.diff_ids.len(),
            });
        }
        if !host.accepts_config(&self.platform) {
            return Err(ManifestError::WrongPlatform {
                image: shown(&self.platform.to_string()),
                host: host.to_string(),
            });
        }
        Ok(())
    }
}

/// Go writes absent slices and maps as `null`.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<String>, D::Error> {
    let map: Option<BTreeMap<String, IgnoredAny>> = Option::deserialize(deserializer)?;
    Ok(map.unwrap_or_default().into_keys().collect())
}

/// The chain IDs of a stack of layers, lowest first (image-spec, `config.md`, "Layer ChainID").
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => *diff_id,
            Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
