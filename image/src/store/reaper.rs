//! Deleting what nobody needs, in the background.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::core::Core;
use super::layout;
use super::objects::{Key, Objects, Usage};
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

/// What is in the trash, and the usage that goes with it.
type Discarded = Vec<(PathBuf, Usage)>;

/// Deletes whatever loses its last pin, for as long as the store is open.
pub(super) async fn run(core: Weak<Core>, objects: Arc<Objects>) {
    let mut pause: Option<Duration> = None;
    let mut discarded = Discarded::new();
    loop {
        match pause {
            Some(pause) => drop(tokio::time::timeout(pause, objects.wake.notified()).await),
            None => objects.wake.notified().await,
        }
        let Some(core) = core.upgrade() else { return };
        let longer = pause.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE));
        let all = discard_unpinned(&core, &mut discarded).await;
        let emptied = empty_trash(&core, &mut discarded).await;
        pause = (!(all && emptied)).then_some(longer);
    }
}

/// Moves unneeded objects to the trash; false where one is left.
async fn discard_unpinned(core: &Arc<Core>, discarded: &mut Discarded) -> bool {
    let unpinned = core.objects.unpinned();
    if unpinned.is_empty() {
        return true;
    }
    // A removed record must not come back by a power cut and find its layers gone.
    let images = core.layout.images();
    if let Err(error) = core.blocking(move || layout::sync_folder(&images)).await {
        tracing::warn!(%error, "cannot flush the removal of images; deleting nothing for now");
        return false;
    }
    let mut all = true;
    for key in unpinned {
        // Whoever has the lock is making the object, so needs it; or has just given it up.
        let Some(_lock) = core.objects.try_lock(key) else {
            all = false;
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
    all
}

/// Deletes what is in the trash; false where something is left.
async fn empty_trash(core: &Arc<Core>, discarded: &mut Discarded) -> bool {
    let (emptying, mut doomed) = (Arc::clone(core), std::mem::take(discarded));
    let emptied = core.blocking(move || {
        // One by one, so that the usage that is told falls with the one on disk.
        doomed.retain(|(place, usage)| {
            let deleted = delete(place);
            if deleted {
                emptying.objects.freed(*usage);
            }
            !deleted
        });
        let released = delete_released_holds(&emptying);
        let all = delete_others(&emptying, &doomed) && released && doomed.is_empty();
        Ok((doomed, all))
    });
    match emptied.await {
        Ok((left, all)) => {
            *discarded = left;
            all
        }
        Err(error) => {
            tracing::warn!(%error, "emptying the trash ended unexpectedly");
            false
        }
    }
}

/// Deletes what else is in the trash: of failed pulls, and of daemons of before.
fn delete_others(core: &Core, tried: &Discarded) -> bool {
    let entries = match layout::entries(&core.layout.trash()) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(%error, "cannot read the trash");
            return false;
        }
    };
    let others = entries
        .iter()
        .filter(|path| tried.iter().all(|(place, _)| place != *path));
    others.filter(|path| !delete(path)).count() == 0
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
