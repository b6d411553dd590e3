//! Opening a store: reading its records, whatever state they are in.
//!
//! A record that cannot be used is put into `quarantine/` with a warning; the store always opens.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::ImageConfig;
use super::catalog::{Catalog, Hold, PinnedNames};
use super::commit;
use super::core::Core;
use super::holds::check_owner;
use super::layout::{self, Layout};
use super::objects::{Key, Objects, Present};
use super::record::{self, HoldRecord, ImageRecord, LAYER_RECORD, LayerRecord, RecordError};
use crate::digest::Digest;
use crate::layer::Directory;
use crate::manifest::ImageConfigFile;
use crate::platform::HostPlatform;
use crate::pull::places::Places;
use crate::registry::Registries;

/// A store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its folders could not be made or read.
    #[error("cannot open the image store {path}")]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another process uses it.
    #[error("the image store {0} is in use by another process")]
    InUse(PathBuf),
}

/// Opens the store of `config`. Blocks.
pub(super) fn open(config: ImageConfig) -> Result<Core, OpenError> {
    let layout = Layout::new(config.root);
    let failed = |path: PathBuf| move |source| OpenError::Io { path, source };
    layout.create().map_err(failed(layout.root.clone()))?;
    let lock = lock(&layout.root)?;
    let core = Core {
        objects: Arc::new(Objects::default()),
        catalog: Mutex::new(Catalog::default()),
        records: tokio::sync::Mutex::new(()),
        released: Mutex::default(),
        pinned: PinnedNames::new(&config.pinned),
        format: Box::new(Directory),
        registries: Registries::new(config.config_dirs, config.progress_timeout),
        places: Places::new(config.max_concurrent_downloads),
        limits: config.limits,
        platform: HostPlatform::detect(),
        layout,
        _lock: lock,
    };
    // Nothing is being pulled yet.
    whole_files(&core.layout.blobs()).map_err(failed(core.layout.blobs()))?;
    load_images(&core).map_err(failed(core.layout.images()))?;
    load_holds(&core).map_err(failed(core.layout.holds()))?;
    Ok(core)
}

fn lock(root: &Path) -> Result<File, OpenError> {
    let path = root.join("lock");
    let failed = |source| OpenError::Io {
        path: path.clone(),
        source,
    };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(OpenError::InUse(root.to_owned())),
        Err(errno) => Err(failed(errno.into())),
    }
}

/// The files of a folder; leftovers of interrupted writes are removed.
fn whole_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let (leftovers, whole): (Vec<_>, Vec<_>) = layout::entries(folder)?
        .into_iter()
        .partition(|path| layout::is_temporary(path));
    for path in leftovers {
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove a leftover");
        }
    }
    Ok(whole)
}

fn quarantine(core: &Core, path: &Path, error: &RecordError) {
    let cause = std::error::Error::source(error)
        .map(|cause| format!(": {cause}"))
        .unwrap_or_default();
    match core.layout.quarantine_file(path) {
        Ok(aside) => tracing::warn!(
            record = %path.display(), quarantined = %aside.display(),
            "the record cannot be used: {error}{cause}"
        ),
        Err(failed) => tracing::warn!(
            record = %path.display(), %failed,
            "the record cannot be used ({error}{cause}) nor put aside"
        ),
    }
}

fn load_images(core: &Core) -> io::Result<()> {
    let mut images = Vec::new();
    for path in whole_files(&core.layout.images())? {
        match load_image(core, &path) {
            Ok(image) => images.push(image),
            Err(error) => quarantine(core, &path, &error),
        }
    }
    // Of two images that claim one tag the one written last is right.
    images.sort_by_key(|(record, _)| std::cmp::Reverse(record.updated_at));
    let mut taken = std::collections::HashSet::new();
    for (mut record, config) in images {
        record.tags.retain(|tag| taken.insert(tag.clone()));
        commit::enter(core, record, Arc::new(config));
    }
    Ok(())
}

fn load_image(core: &Core, path: &Path) -> Result<(ImageRecord, ImageConfigFile), RecordError> {
    let record: ImageRecord = record::read(path)?;
    if core.layout.image(&record.id) != path {
        return Err(RecordError::Name);
    }
    for chain_id in &record.layers {
        load_layer(core, chain_id)?;
    }
    for digest in &record.blobs {
        load_blob(core, digest)?;
    }
    if record.artifact {
        return Ok((record, ImageConfigFile::default()));
    }
    let bytes = std::fs::read(core.layout.blob(&record.id)).map_err(RecordError::Read)?;
    if Digest::of(&bytes) != record.id {
        let text = format!("its config {} is damaged", record.id);
        return Err(RecordError::Missing(text));
    }
    let config = ImageConfigFile::parse(&bytes)
        .map_err(|error| RecordError::Missing(format!("its config is unusable: {error}")))?;
    Ok((record, config))
}

fn load_layer(core: &Core, chain_id: &Digest) -> Result<(), RecordError> {
    let key = Key::Layer(*chain_id);
    if core.objects.present(key).is_some() {
        return Ok(());
    }
    let folder = core.layout.layer(chain_id);
    let missing = |what: &str| RecordError::Missing(format!("its layer {chain_id} is {what}"));
    let record: LayerRecord =
        record::read(&folder.join(LAYER_RECORD)).map_err(|error| missing(&error.to_string()))?;
    if record.chain_id != *chain_id || !core.format.lower(&folder).exists() {
        return Err(missing("damaged"));
    }
    core.objects.insert(
        key,
        Present {
            bytes: record.bytes,
            inodes: record.inodes,
            // It has been flushed before the record that names it was written.
            durable: true,
            sources: record.sources,
            registries: record.registries,
        },
    );
    Ok(())
}

/// The layer of a folder that overlayfs has as a lower, if it is whole.
pub(super) fn layer_of(core: &Core, lower: &Path) -> Option<Digest> {
    let folder = lower
        .ancestors()
        .find(|path| path.parent() == Some(&core.layout.layers()))?;
    let chain_id = Digest::from_hex(folder.file_name()?.to_str()?).ok()?;
    match load_layer(core, &chain_id) {
        Ok(()) => Some(chain_id),
        Err(error) => {
            tracing::warn!(lower = %lower.display(), "a layer in use can't be kept: {error}");
            None
        }
    }
}

fn load_blob(core: &Core, digest: &Digest) -> Result<(), RecordError> {
    let metadata = std::fs::metadata(core.layout.blob(digest))
        .map_err(|error| RecordError::Missing(format!("its blob {digest}: {error}")))?;
    core.objects.insert(
        Key::Blob(*digest),
        Present {
            bytes: metadata.len().next_multiple_of(4096),
            inodes: 1,
            durable: true,
            ..Present::default()
        },
    );
    Ok(())
}

fn load_holds(core: &Core) -> io::Result<()> {
    for path in whole_files(&core.layout.holds())? {
        match load_hold(core, &path) {
            Ok(hold) => {
                let owner = hold.record.owner.clone();
                core.catalog.lock().holds.insert(owner, hold);
            }
            Err(error) => quarantine(core, &path, &error),
        }
    }
    Ok(())
}

fn load_hold(core: &Core, path: &Path) -> Result<Hold, RecordError> {
    let record: HoldRecord = record::read(path)?;
    if check_owner(&record.owner).is_err() || core.layout.hold(&record.owner) != path {
        return Err(RecordError::Name);
    }
    for chain_id in &record.layers {
        if let Err(error) = load_layer(core, chain_id) {
            // The owner may still be stopped and removed; only a new start would fail.
            tracing::warn!(owner = record.owner, "a held image is incomplete: {error}");
        }
    }
    let pins = core
        .objects
        .pin(record.layers.iter().copied().map(Key::Layer));
    Ok(Hold {
        record,
        _pins: pins,
    })
}
