//! Deleting what nobody needs, in the background.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::core::Core;
use super::layout;
use super::objects::{Key, Objects};
use crate::digest::Digest;

/// After something could not be deleted, doubled each time; a new deletion does not wait for it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What [`crate::ImageStore::gc`] found to delete.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Layers that belong to no image.
    pub layers: usize,
    /// Blobs that belong to no image.
    pub blobs: usize,
    /// Unfinished layers of processes that are gone.
    pub stages: usize,
}

/// Deletes whatever loses its last pin, for as long as the store is open.
pub(super) async fn run(core: Weak<Core>, objects: Arc<Objects>) {
    let mut pause: Option<Duration> = None;
    loop {
        match pause {
            Some(pause) => drop(tokio::time::timeout(pause, objects.wake.notified()).await),
            None => objects.wake.notified().await,
        }
        let Some(core) = core.upgrade() else { return };
        let longer = pause.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE));
        pause = (!reap(&core).await).then_some(longer);
    }
}

/// Moves unneeded objects to the trash, then empties the trash; false where something is left.
async fn reap(core: &Arc<Core>) -> bool {
    let unpinned = core.objects.unpinned();
    if !unpinned.is_empty() {
        // A removed record must not come back by a power cut and find its layers gone.
        let images = core.layout.images();
        if let Err(error) = core.blocking(move || layout::sync_folder(&images)).await {
            tracing::warn!(%error, "cannot flush the removal of images; deleting nothing for now");
            return false;
        }
    }
    let mut all = true;
    let mut discarded = Vec::new();
    for key in unpinned {
        // Whoever has the lock is making the object, so needs it.
        let Some(_lock) = core.objects.try_lock(key) else {
            continue;
        };
        let Some(forgotten) = core.objects.forget_unpinned(key) else {
            continue;
        };
        let freed = forgotten.usage();
        let path = match key {
            Key::Layer(chain_id) => core.layout.layer(&chain_id),
            Key::Blob(digest) => core.layout.blob(&digest),
        };
        let discarding = Arc::clone(core);
        let shown = path.clone();
        let moved = core
            .blocking(move || discarding.layout.discard(&path))
            .await;
        match moved {
            Ok(place) => discarded.push((place, freed)),
            Err(error) => {
                tracing::warn!(path = %shown.display(), %error, "cannot delete");
                core.objects.freed(freed);
                // Whole, and still where it was.
                core.objects.insert(key, forgotten);
                all = false;
            }
        }
    }
    let emptying = Arc::clone(core);
    let emptied = core.blocking(move || {
        // One by one, so that the usage that is told falls with the one on disk.
        for (place, freed) in discarded {
            delete(&place);
            emptying.objects.freed(freed);
        }
        let released = delete_released_holds(&emptying);
        Ok(empty_trash(&emptying) && released)
    });
    match emptied.await {
        Ok(emptied) => all && emptied,
        Err(error) => {
            tracing::warn!(%error, "emptying the trash ended unexpectedly");
            false
        }
    }
}

fn empty_trash(core: &Core) -> bool {
    match layout::entries(&core.layout.trash()) {
        Ok(entries) => entries.iter().filter(|path| !delete(path)).count() == 0,
        Err(error) => {
            tracing::warn!(%error, "cannot read the trash");
            false
        }
    }
}

/// Those that could not be deleted when they were released.
fn delete_released_holds(core: &Core) -> bool {
    let mut owners = core.released.lock();
    owners.retain(|owner| !core.delete_hold(owner));
    owners.is_empty()
}

/// Deletes a file or a whole folder; absent is fine. False: it is still there.
fn delete(path: &Path) -> bool {
    let point = joey_failpoint::hit("image.trash.remove");
    match point.and_then(|()| joey_removal::remove(path)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot delete");
            false
        }
        _ => true,
    }
}

/// Finds what no image, hold or pull knows of and moves it to the trash. Blocks.
pub(super) fn sweep(core: &Core) -> std::io::Result<GcReport> {
    let mut report = GcReport::default();
    for folder in core.layout.abandoned_stages()? {
        core.layout.discard(&folder)?;
        report.stages += 1;
    }
    for path in layout::entries(&core.layout.layers())? {
        report.layers += usize::from(sweep_one(core, path, Key::Layer)?);
    }
    for path in layout::entries(&core.layout.blobs())? {
        report.blobs += usize::from(sweep_one(core, path, Key::Blob)?);
    }
    core.objects.wake.notify_one();
    Ok(report)
}

fn sweep_one(core: &Core, path: PathBuf, key: fn(Digest) -> Key) -> std::io::Result<bool> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if let Ok(digest) = Digest::from_hex(&name) {
        let Some(_lock) = core.objects.try_lock(key(digest)) else {
            return Ok(false);
        };
        if core.objects.knows(key(digest)) {
            return Ok(false);
        }
        core.layout.discard(&path)?;
    } else if layout::is_temporary(&path) {
        // A pull may be writing it.
        return Ok(false);
    } else {
        core.layout.discard(&path)?;
    }
    Ok(true)
}
