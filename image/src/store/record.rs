//! Records on disk: images, layers, holds.

use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Version of all records; a record of another version is not read.
pub(crate) const VERSION: u32 = 1;

/// A record that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("cannot read it")]
    Read(#[source] io::Error),
    #[error("it is malformed")]
    Json(#[source] serde_json::Error),
    #[error("it has version {0}, known is {VERSION}")]
    Version(u32),
    #[error("it belongs to another name")]
    Name,
    #[error("{0}")]
    Missing(String),
}

/// An image: `images/<id>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    pub version: u32,
    /// Digest of the config; of an artifact, of its manifest.
    pub id: Digest,
    /// Whether the config is some artifact's, not an image's.
    pub artifact: bool,
    /// All blobs kept for the image: index, manifest, config.
    pub blobs: Vec<Digest>,
    /// Chain IDs of the layers, lowest first.
    pub layers: Vec<Digest>,
    /// Normalised references with tags.
    pub tags: Vec<String>,
    /// `repository@digest` references.
    pub digests: Vec<String>,
    pub pinned: bool,
    /// Nanoseconds since the epoch.
    pub pulled_at: u64,
    /// Nanoseconds since the epoch; of two records that claim one tag the newer is right.
    pub updated_at: u64,
}

/// A layer: `layers/<chain id>/layer.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    pub version: u32,
    pub chain_id: Digest,
    /// Digests of compressed blobs proven to unpack to this layer.
    pub sources: Vec<Digest>,
    /// Registries, by `host[:port]`, that gave one of them.
    #[serde(default)]
    pub registries: Vec<String>,
    pub bytes: u64,
    pub inodes: u64,
}

/// Layers that somebody needs whatever becomes of the image: `holds/<owner>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HoldRecord {
    pub version: u32,
    pub owner: String,
    pub image: Digest,
    /// Chain IDs, lowest first.
    pub layers: Vec<Digest>,
}

/// Name of a layer's record in its folder.
pub(crate) const LAYER_RECORD: &str = "layer.json";

/// Reads a record.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, RecordError> {
    parse(&std::fs::read(path).map_err(RecordError::Read)?)
}

/// A record from its text.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Versioned { version } = serde_json::from_slice(bytes).map_err(RecordError::Json)?;
    if version != VERSION {
        return Err(RecordError::Version(version));
    }
    serde_json::from_slice(bytes).map_err(RecordError::Json)
}

/// A record's text.
pub(crate) fn encode<T: Serialize>(record: &T) -> io::Result<Vec<u8>> {
    serde_json::to_vec(record).map_err(io::Error::from)
}
