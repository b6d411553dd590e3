//! An image as others see it.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::digest::Digest;
use crate::manifest::{ContainerConfig, ImageConfigFile};
use crate::store::objects::Pins;
use crate::store::record::ImageRecord;

/// An image on this node. A value of it is a picture of one moment; names may change later.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the config (of an artifact: of its manifest), `sha256:…`.
    pub id: String,
    /// Normalised references with tags, e.g. `docker.io/library/busybox:latest`.
    pub repo_tags: Vec<String>,
    /// `repository@digest` references; the digest is that of what was pulled, index or manifest.
    pub repo_digests: Vec<String>,
    /// Bytes on disk, of layers shared with other images too.
    pub size: u64,
    /// What containers are made from.
    pub config: ContainerConfig,
    /// When the image was built, as its config says (RFC 3339).
    pub created: Option<String>,
    /// Who built it, as its config says.
    pub author: Option<String>,
    /// CPU architecture, as its config says.
    pub architecture: String,
    /// Must not be removed by garbage collectors.
    pub pinned: bool,
    /// When it was first pulled.
    pub pulled_at: SystemTime,
    /// An artifact whose layers can be mounted, but that is no image to run.
    pub is_artifact: bool,
    /// Chain IDs, lowest first.
    pub(crate) layers: Vec<Digest>,
    pub(crate) digest: Digest,
}

impl Image {
    pub(crate) fn new(
        record: &ImageRecord,
        config: &ImageConfigFile,
        size: u64,
        pinned: bool,
    ) -> Self {
        Self {
            id: record.id.to_string(),
            repo_tags: record.tags.clone(),
            repo_digests: record.digests.clone(),
            size,
            config: config.container.clone(),
            created: config.created.clone(),
            author: config.author.clone(),
            architecture: config.platform.architecture.clone(),
            pinned: record.pinned || pinned,
            pulled_at: SystemTime::UNIX_EPOCH + Duration::from_nanos(record.pulled_at),
            is_artifact: record.artifact,
            layers: record.layers.clone(),
            digest: record.id,
        }
    }
}

/// Keeps the layers of an image on disk, even when the image is removed, until it is dropped.
#[derive(Debug)]
pub struct LayerLease {
    pub(crate) lowers: Vec<PathBuf>,
    pub(crate) _pins: Pins,
}

impl LayerLease {
    /// The lower directories for overlayfs, topmost first; never empty.
    #[must_use]
    pub fn lowers(&self) -> &[PathBuf] {
        &self.lowers
    }
}
