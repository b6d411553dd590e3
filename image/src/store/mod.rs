//! The images of this node.

pub(crate) mod catalog;
pub(crate) mod commit;
pub(crate) mod core;
mod holds;
pub(crate) mod layout;
pub(crate) mod objects;
mod open;
mod reaper;
pub(crate) mod record;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;
use tracing::Instrument as _;

pub use catalog::AmbiguousName;
pub use commit::CommitError;
pub use holds::LeaseError;
pub use open::OpenError;
pub use reaper::GcReport;

use crate::auth::Credentials;
use crate::image::Image;
use crate::pull::{self, PullError, PullRequest};
use crate::reference::Reference;
use crate::unpack::UnpackLimits;
use core::Core;

/// How a store works.
#[derive(Debug, Clone)]
pub struct ImageConfig {
    /// Folder of the store; made when missing.
    pub root: PathBuf,
    /// Folders of `<host>/hosts.toml` files (`certs.d`); the first that knows a host counts.
    pub config_dirs: Vec<PathBuf>,
    /// Layers of one image fetched and unpacked at a time. All pulls together have four times as
    /// many, those from one registry twice.
    pub max_concurrent_downloads: usize,
    /// A transfer that makes no real progress for this long is broken off and resumed.
    pub progress_timeout: Duration,
    /// Images that garbage collectors must keep: references, or prefixes that end in `*`.
    pub pinned: Vec<String>,
    /// Bounds of one layer.
    pub limits: UnpackLimits,
}

impl ImageConfig {
    /// The defaults, in `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            config_dirs: Vec::new(),
            max_concurrent_downloads: 4,
            progress_timeout: Duration::from_secs(60),
            pinned: Vec::new(),
            limits: UnpackLimits::default(),
        }
    }
}

/// An image could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// The name could mean several images.
    #[error(transparent)]
    Ambiguous(#[from] AmbiguousName),
    /// Its record could not be deleted.
    #[error("cannot delete the record {path}")]
    Record {
        /// The record.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The task ended by a bug, or the daemon is going down.
    #[error("the removal was broken off")]
    Aborted,
}

/// An image could not be pinned or unpinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// There is no such image.
    #[error("image {0} is not here")]
    NotFound(String),
    /// The name could mean several images.
    #[error(transparent)]
    Ambiguous(#[from] AmbiguousName),
    /// Its record could not be written.
    #[error(transparent)]
    Record(#[from] CommitError),
}

/// What images take on disk.
#[derive(Debug, Clone)]
pub struct FsInfo {
    /// A folder on the file system that holds them.
    pub mountpoint: PathBuf,
    /// Bytes of all images, and of removed ones until their files are gone.
    pub used_bytes: u64,
    /// Inodes of the same.
    pub inodes_used: u64,
    /// When this was true.
    pub timestamp: SystemTime,
}

/// The images of this node: pulled, kept, lent to containers, removed.
#[derive(Debug)]
pub struct ImageStore {
    core: Arc<Core>,
    reaper: JoinHandle<()>,
}

impl Drop for ImageStore {
    fn drop(&mut self) {
        self.reaper.abort();
    }
}

impl ImageStore {
    /// Opens a store and reads its records. Blocks for some file reads; must be called within a
    /// tokio runtime. Leftovers stay until [`gc`](Self::gc).
    ///
    /// # Errors
    ///
    /// When the folders cannot be made or read, or another process has the store open. A bad record
    /// is no error: it is quarantined.
    pub fn open(config: ImageConfig) -> Result<Arc<Self>, OpenError> {
        let core = Arc::new(open::open(config)?);
        let reaper = reaper::run(Arc::downgrade(&core), Arc::clone(&core.objects));
        Ok(Arc::new(Self {
            core,
            reaper: tokio::spawn(reaper),
        }))
    }

    /// Pulls an image. The registry is asked with the caller's credentials also when the image is
    /// here already. Dropping the future does not stop the pull.
    ///
    /// # Errors
    ///
    /// See [`PullError`]; nothing of a failed pull is visible.
    pub async fn pull(&self, request: PullRequest) -> Result<Arc<Image>, PullError> {
        tokio::spawn(pull::run(Arc::clone(&self.core), request).in_current_span())
            .await
            .map_err(|_| PullError::Aborted)?
    }

    /// Asks a registry, by `host[:port]`, whether it takes some credentials.
    ///
    /// # Errors
    ///
    /// See [`PullError`].
    pub async fn check_login(
        &self,
        registry: &str,
        credentials: Credentials,
    ) -> Result<(), PullError> {
        pull::check_login(Arc::clone(&self.core), registry, credentials).await
    }

    /// All images, in the order of their IDs.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Image>> {
        let catalog = self.core.catalog.lock();
        catalog.images().map(|e| Arc::clone(&e.image)).collect()
    }

    /// Finds an image by ID (with or without `sha256:`), unambiguous ID prefix of at least 8
    /// digits, tag or digest reference. An ambiguous prefix finds nothing.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Image>> {
        let catalog = self.core.catalog.lock();
        let found = catalog.find(name).ok().flatten();
        found.map(|entry| Arc::clone(&entry.image))
    }

    /// Removes an image with all its names. An absent image is success. Files are deleted in the
    /// background, those of layers in use when their last user is gone.
    ///
    /// # Errors
    ///
    /// See [`RemoveError`].
    pub async fn remove(&self, name: &str) -> Result<(), RemoveError> {
        let (core, name) = (Arc::clone(&self.core), name.to_owned());
        tokio::spawn(async move { remove(&core, &name).await })
            .await
            .map_err(|_| RemoveError::Aborted)?
    }

    /// Marks an image to be kept by garbage collectors, or not; the configuration's pins stay.
    ///
    /// # Errors
    ///
    /// See [`PinError`].
    pub async fn set_pinned(&self, name: &str, pinned: bool) -> Result<(), PinError> {
        let _guard = self.core.records.lock().await;
        let (mut record, config) = {
            let catalog = self.core.catalog.lock();
            let entry = catalog
                .find(name)?
                .ok_or_else(|| PinError::NotFound(name.to_owned()))?;
            (entry.record.clone(), Arc::clone(&entry.config))
        };
        if record.pinned != pinned {
            record.pinned = pinned;
            commit::write_record(&self.core, &record).await?;
            commit::enter(&self.core, record, config);
        }
        Ok(())
    }

    /// Takes a tag from an image that has others; false where `name` is no tag or the only one.
    ///
    /// # Errors
    ///
    /// When the image's record can't be written.
    pub async fn untag(&self, name: &str) -> Result<bool, CommitError> {
        let Ok(reference) = name.parse::<Reference>() else {
            return Ok(false);
        };
        let core = Arc::clone(&self.core);
        // To its end: the record on disk and the catalog change together.
        tokio::spawn(async move { untag(&core, &reference.to_string()).await })
            .await
            .map_err(|error| CommitError::aborted(name, error))?
    }

    /// What the store takes on disk. Cheap.
    #[must_use]
    pub fn fs_info(&self) -> FsInfo {
        let usage = self.core.objects.usage();
        FsInfo {
            mountpoint: self.core.layout.root.clone(),
            used_bytes: usage.bytes,
            inodes_used: usage.inodes,
            timestamp: SystemTime::now(),
        }
    }

    /// Deletes what an earlier process left: unfinished layers, the trash, layers and blobs of no
    /// image. For the daemon's start, once the holds are right. Deletion goes on in the background.
    ///
    /// # Errors
    ///
    /// When the folders cannot be read.
    pub async fn gc(&self) -> io::Result<GcReport> {
        let core = Arc::clone(&self.core);
        self.core.blocking(move || reaper::sweep(&core)).await
    }

    /// An image's config as the registry gave it (of an artifact: its manifest).
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub async fn config_json(&self, image: &Image) -> io::Result<Vec<u8>> {
        let path = self.core.layout.blob(&image.digest);
        self.core.blocking(move || std::fs::read(path)).await
    }
}

async fn untag(core: &Arc<Core>, tag: &str) -> Result<bool, CommitError> {
    let _guard = core.records.lock().await;
    let (mut record, config) = {
        let catalog = core.catalog.lock();
        let named = catalog.id_of_name(tag).and_then(|id| catalog.by_id(&id));
        match named {
            Some(entry)
                if entry.record.tags.len() > 1
                    && entry.record.tags.iter().any(|other| other == tag) =>
            {
                (entry.record.clone(), Arc::clone(&entry.config))
            }
            _ => return Ok(false),
        }
    };
    record.tags.retain(|other| other != tag);
    commit::write_record(core, &record).await?;
    commit::enter(core, record, config);
    Ok(true)
}

async fn remove(core: &Arc<Core>, name: &str) -> Result<(), RemoveError> {
    let _guard = core.records.lock().await;
    let Some(id) = core.catalog.lock().find(name)?.map(|entry| entry.record.id) else {
        return Ok(());
    };
    let path = core.layout.image(&id);
    let target = path.clone();
    let deleted = core.blocking(move || {
        match joey_failpoint::hit("image.record.remove")
            .and_then(|()| std::fs::remove_file(&target))
        {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    });
    deleted
        .await
        .map_err(|source| RemoveError::Record { path, source })?;
    let removed = core.catalog.lock().remove(&id);
    // Outside the lock: its pins may be the last.
    drop(removed);
    Ok(())
}
