//! Removes a container.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::create::held_images;
use super::kill::kill_group;
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::model::ContainerRecord;
use crate::objects::Container;
use crate::runtime::Runtime;

/// Between attempts to delete a folder, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

impl Runtime {
    /// Removes a container, killing it where it runs; an unknown one is fine.
    ///
    /// # Errors
    /// What could not be removed; a retry goes on from there.
    pub async fn remove_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let Ok(container) = self.container(id) else {
            return Ok(());
        };
        let runtime = Arc::clone(self);
        let key = format!("remove/{}", container.id());
        self.operations
            .run(key, move || async move { runtime.remove(&container).await })
            .await
    }

    async fn remove(self: Arc<Self>, container: &Arc<Container>) -> Result<()> {
        self.stop_container(container.id(), Duration::ZERO).await?;
        let _changing = container.changing.lock().await;
        // A start that was under way when the stop looked.
        self.kill_container(container).await?;
        let record = container.record();
        // What a start left whose end nobody was told.
        kill_group(&record.cgroup).await?;
        record
            .cgroup
            .remove()
            .await
            .map_err(|e| Error::step(format!("remove the cgroup of container {}", record.id), e))?;
        let pod = self.pod_of(&record)?;
        if let Some(shim) = pod.shim()
            && let Err(error) = shim.delete(&record.id).await
        {
            tracing::warn!(container = record.id, %error, "the shim keeps an ended container");
        }
        self.remove_folders(&record);
        container.erase(&self.container_records)?;
        for held in held_images(&record) {
            self.images.release(&held.owner);
        }
        self.stats.forget(&record.id);
        self.forget_container(&pod, &record.id);
        self.announce(&pod, &record.id, EventKind::Deleted);
        Ok(())
    }

    /// Takes away a container's bundle and writable layer.
    pub(crate) fn remove_folders(&self, record: &ContainerRecord) {
        let bundle = self.config.bundle(&record.pod_id, &record.id);
        drop(joey_failpoint::hit("bundle.remove").and_then(|()| joey_removal::remove(&bundle)));
        self.discard(&self.config.writable(&record.id), &record.id);
    }

    /// Renames a folder away and deletes it in the background: the caller need not wait for a
    /// million files.
    pub(crate) fn discard(&self, folder: &Path, name: &str) {
        let trash = self.config.root.join("trash");
        let doomed = trash.join(name);
        let moved = joey_failpoint::hit("container.folder.discard")
            .and_then(|()| std::fs::create_dir_all(&trash))
            .and_then(|()| std::fs::rename(folder, &doomed));
        let folder = match moved {
            Ok(()) => doomed,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(_) => folder.to_owned(),
        };
        delete_in_background(folder);
    }
}

/// Deletes a folder, as often as it takes; what a killed daemon leaves of it is swept at the next
/// start.
pub(crate) fn delete_in_background(folder: PathBuf) {
    tokio::spawn(async move {
        let mut pause = FIRST_PAUSE;
        loop {
            let doomed = folder.clone();
            let deleted = tokio::task::spawn_blocking(move || {
                joey_failpoint::hit("container.folder.remove")?;
                joey_removal::remove(&doomed)
            });
            match deleted.await {
                Ok(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(folder = %folder.display(), %error, ?pause, "a folder is not deleted yet");
                }
                _ => return,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    });
}
