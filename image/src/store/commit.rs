//! Making a pulled image part of the store.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::task::JoinError;

use super::catalog::Entry;
use super::core::Core;
use super::layout::{self, Durability};
use super::objects::{Key, Pins, Present};
use super::record::{self, ImageRecord};
use crate::digest::Digest;
use crate::image::Image;
use crate::manifest::ImageConfigFile;

/// A pulled image could not be recorded.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}")]
pub struct CommitError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl CommitError {
    /// The task that changes an image's record died.
    pub(crate) fn aborted(image: &str, error: JoinError) -> Self {
        Self {
            action: "change the record of",
            path: image.into(),
            source: io::Error::other(error),
        }
    }

    pub(crate) fn new(action: &'static str, path: PathBuf, source: io::Error) -> Self {
        Self {
            action,
            path,
            source,
        }
    }

    pub(crate) fn is_no_space(&self) -> bool {
        self.source.kind() == io::ErrorKind::StorageFull
    }
}

/// An image whose layers are all in place.
#[derive(Debug)]
pub(crate) struct NewImage {
    pub id: Digest,
    pub artifact: bool,
    pub config: ImageConfigFile,
    pub blobs: Vec<(Digest, Bytes)>,
    pub layers: Vec<Digest>,
    pub tag: Option<String>,
    pub digest: String,
}

/// Records an image: its blobs, one `syncfs` for all that is new, then its record. `disk` was opened
/// before anything was written: the kernel tells it of every write that failed since.
pub(crate) async fn commit(
    core: &Arc<Core>,
    new: NewImage,
    disk: File,
    pins: Pins,
) -> Result<Arc<Image>, CommitError> {
    for (digest, bytes) in &new.blobs {
        keep_blob(core, *digest, bytes.clone()).await?;
    }
    let keys: Vec<Key> = new
        .layers
        .iter()
        .copied()
        .map(Key::Layer)
        .chain(new.blobs.iter().map(|(digest, _)| Key::Blob(*digest)))
        .collect();
    if core.objects.any_volatile(&keys) {
        sync_all(core, disk).await?;
        core.objects.mark_durable(&keys);
    }
    let _guard = core.records.lock().await;
    let known = core
        .catalog
        .lock()
        .by_id(&new.id)
        .map(|entry| (entry.record.clone(), Arc::clone(&entry.image)));
    let known_record = known.as_ref().map(|(record, _)| record);
    let record = merge(known_record, &new);
    if let Some((old, image)) = &known
        && same_but_for_time(old, &record)
    {
        return Ok(Arc::clone(image));
    }
    write_record(core, &record).await?;
    if let Some(tag) = &new.tag
        && let Err(error) = take_tag_from_others(core, tag, &new.id).await
    {
        if known.is_none() {
            // Its layers go with the pins.
            withdraw_record(core, &record.id).await;
        }
        return Err(error);
    }
    let image = enter(core, record, Arc::new(new.config));
    drop(pins);
    Ok(image)
}

fn same_but_for_time(old: &ImageRecord, new: &ImageRecord) -> bool {
    *old == ImageRecord {
        updated_at: old.updated_at,
        ..new.clone()
    }
}

async fn keep_blob(core: &Arc<Core>, digest: Digest, bytes: Bytes) -> Result<(), CommitError> {
    let key = Key::Blob(digest);
    let _lock = core.objects.lock(key).await;
    let path = core.layout.blob(&digest);
    if core.objects.present(key).is_some() && core.local_blob(digest).await.is_some() {
        return Ok(());
    }
    let failed = |source| CommitError {
        action: "write",
        path: path.clone(),
        source,
    };
    let present = Present {
        bytes: (bytes.len() as u64).next_multiple_of(4096),
        inodes: 1,
        ..Present::default()
    };
    let target = path.clone();
    core.blocking(move || layout::replace(&target, &bytes, Durability::Lazy))
        .await
        .map_err(failed)?;
    core.objects.insert(key, present);
    Ok(())
}

async fn withdraw_record(core: &Core, id: &Digest) {
    let path = core.layout.image(id);
    let removed = core.blocking(move || {
        joey_failpoint::hit("image.record.withdraw")?;
        std::fs::remove_file(path)
    });
    if let Err(error) = removed.await {
        tracing::warn!(%id, %error, "the record of an image that was not pulled stays behind");
    }
}

async fn sync_all(core: &Arc<Core>, disk: File) -> Result<(), CommitError> {
    core.blocking(move || {
        joey_failpoint::hit("image.sync")?;
        Ok(rustix::fs::syncfs(disk)?)
    })
    .await
    .map_err(|source| CommitError {
        action: "flush",
        path: core.layout.root.clone(),
        source,
    })
}

fn merge(known: Option<&ImageRecord>, new: &NewImage) -> ImageRecord {
    let now = nanos_now();
    let mut record = known.cloned().unwrap_or_else(|| ImageRecord {
        version: record::VERSION,
        id: new.id,
        artifact: new.artifact,
        blobs: Vec::new(),
        layers: new.layers.clone(),
        tags: Vec::new(),
        digests: Vec::new(),
        pinned: false,
        pulled_at: now,
        updated_at: now,
    });
    record.updated_at = now;
    for (digest, _) in &new.blobs {
        push_new(&mut record.blobs, digest);
    }
    if let Some(tag) = &new.tag {
        push_new(&mut record.tags, tag);
    }
    push_new(&mut record.digests, &new.digest);
    record
}

/// Adds an item to a list that has none of it yet.
pub(crate) fn push_new<T: PartialEq + Clone>(list: &mut Vec<T>, item: &T) {
    if !list.contains(item) {
        list.push(item.clone());
    }
}

pub(crate) fn nanos_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

/// Writes an image's record. The caller holds `core.records`.
pub(crate) async fn write_record(core: &Core, record: &ImageRecord) -> Result<(), CommitError> {
    let path = core.layout.image(&record.id);
    let failed = |source| CommitError {
        action: "write",
        path: path.clone(),
        source,
    };
    let text = record::encode(record).map_err(failed)?;
    let target = path.clone();
    core.blocking(move || layout::replace(&target, &text, Durability::Synced))
        .await
        .map_err(failed)
}

/// A tag that moved is the old image's no longer. Should the daemon die between the two records, the
/// newer one is right.
async fn take_tag_from_others(
    core: &Arc<Core>,
    tag: &str,
    new_owner: &Digest,
) -> Result<(), CommitError> {
    let others: Vec<(ImageRecord, Arc<ImageConfigFile>)> = core
        .catalog
        .lock()
        .images()
        .filter(|entry| entry.record.id != *new_owner)
        .filter(|entry| entry.record.tags.iter().any(|t| t == tag))
        .map(|entry| (entry.record.clone(), Arc::clone(&entry.config)))
        .collect();
    for (mut record, config) in others {
        record.tags.retain(|other| other != tag);
        record.updated_at = nanos_now();
        write_record(core, &record).await?;
        enter(core, record, config);
    }
    Ok(())
}

/// Puts a recorded image into the catalog.
pub(crate) fn enter(core: &Core, record: ImageRecord, config: Arc<ImageConfigFile>) -> Arc<Image> {
    let keys: Vec<Key> = keys_of(&record).collect();
    let pins = core.objects.pin(keys.iter().copied());
    let size = keys
        .iter()
        .filter_map(|key| core.objects.present(*key))
        .map(|present| present.bytes)
        .sum();
    let pinned = core.pinned.matches(&record);
    let image = Arc::new(Image::new(&record, &config, size, pinned));
    let replaced = core.catalog.lock().insert(Entry {
        record,
        config,
        image: Arc::clone(&image),
        _pins: pins,
    });
    // Outside the lock: its pins may be the last.
    drop(replaced);
    image
}

/// The objects an image needs.
pub(crate) fn keys_of(record: &ImageRecord) -> impl Iterator<Item = Key> {
    let layers = record.layers.iter().copied().map(Key::Layer);
    layers.chain(record.blobs.iter().copied().map(Key::Blob))
}
