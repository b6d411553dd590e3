//! Removes a container.

use std::sync::Arc;
use std::time::Duration;

use joey_proto::shim::Delete;

use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::objects::Container;
use crate::runtime::Runtime;

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
        let record = container.record();
        record
            .cgroup
            .remove()
            .await
            .map_err(|e| Error::step(format!("remove the cgroup of container {}", record.id), e))?;
        let pod = self.pod_of(&record)?;
        if let Some(shim) = pod.shim()
            && record.started.is_some()
            && let Err(error) = shim
                .delete(Delete {
                    container_id: record.id.clone(),
                })
                .await
        {
            tracing::warn!(container = record.id, %error, "the shim keeps an ended container");
        }
        self.remove_folders(container);
        self.container_records.remove(&record.id)?;
        container.drop_leases();
        self.stats.forget(&record.id);
        self.forget_container(&pod, &record.id);
        self.announce(&pod, &record.id, EventKind::Deleted);
        Ok(())
    }

    /// Renames the writable layer away and deletes it in the background: the caller need not wait
    /// for a million files. What stays behind is swept at the next start.
    pub(crate) fn remove_folders(&self, container: &Container) {
        let record = container.record();
        drop(std::fs::remove_dir_all(
            self.config.bundle(&record.pod_id, &record.id),
        ));
        let writable = self.config.writable(&record.id);
        let trash = self.config.root.join("trash");
        let doomed = trash.join(&record.id);
        let moved =
            std::fs::create_dir_all(&trash).and_then(|()| std::fs::rename(&writable, &doomed));
        let folder = match moved {
            Ok(()) => doomed,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(_) => writable,
        };
        tokio::task::spawn_blocking(move || {
            if let Err(error) = std::fs::remove_dir_all(&folder) {
                tracing::warn!(folder = %folder.display(), %error, "a writable layer stays behind");
            }
        });
    }
}
