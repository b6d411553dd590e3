//! Makes an ended container ready for another start.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::model::ContainerState;
use crate::objects::Container;
use crate::runtime::Runtime;

impl Runtime {
    /// Makes an ended container a created one again, with its writable layer, in a pod that is run
    /// again in the same words; addresses may be others.
    ///
    /// # Errors
    /// [`Error::WrongState`] unless it has ended, on a writable layer that can be trusted. Where its
    /// pod can't run the container stays as it was.
    pub async fn renew_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let container = self.container(id)?;
        let runtime = Arc::clone(self);
        let key = format!("renew/{}", container.id());
        self.operations
            .run(key, move || async move { runtime.renew(&container).await })
            .await
    }

    async fn renew(self: Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let pod = self.pod_of(&container.record())?;
        let _pod_changing = pod.changing.write().await;
        let _changing = container.changing.lock().await;
        // Not removed while the locks were awaited.
        let present = self.container(container.id())?;
        if !Arc::ptr_eq(&present, container) {
            return Err(Error::no_container(container.id()));
        }
        if container.state() != ContainerState::Exited {
            return Err(Error::WrongState {
                kind: "container",
                id: container.id().to_owned(),
                state: "not exited",
                operation: "starting it again",
                needs: "exited",
            });
        }
        let _finished = container.finishing.lock().await;
        self.release_layer(container)?;
        self.run_again(&pod).await?;
        container.renew();
        self.save_container_or_warn(container);
        Ok(())
    }

    /// Takes the mark of a volatile mount from a writable layer, which the kernel refuses to mount
    /// with it. Within one boot of the node nothing is lost: what was written is on the disk or in
    /// the page cache. Across a boot nobody knows, so such a layer is not used again.
    fn release_layer(&self, container: &Container) -> Result<()> {
        let mark = self.volatile_mark(container.id());
        if !mark.exists() {
            return Ok(());
        }
        if container.record().unsynced {
            return Err(Error::WrongState {
                kind: "container",
                id: container.id().to_owned(),
                state: "on a writable layer that may have lost writes when the node restarted",
                operation: "starting it again",
                needs: "one that was written out: remove the container and run it anew",
            });
        }
        joey_failpoint::hit("layer.release")
            .and_then(|()| std::fs::remove_dir(&mark))
            .map_err(|e| Error::file("remove", mark, e))
    }

    /// What an overlay that is mounted volatile leaves in its work folder, as the kernel's
    /// documentation of overlayfs has it. Daemons of before mounted every layer so.
    pub(crate) fn volatile_mark(&self, id: &str) -> PathBuf {
        let work = self.config.writable(id).join("work");
        work.join("work/incompat/volatile")
    }
}
