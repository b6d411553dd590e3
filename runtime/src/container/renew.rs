//! Makes an ended container ready for another start.

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
    /// [`Error::WrongState`] unless it has ended. Where its pod can't run the container stays as it
    /// was.
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
        if container.state() != ContainerState::Exited {
            return Err(Error::WrongState {
                kind: "container",
                id: container.id().to_owned(),
                state: "not exited",
                operation: "starting it again",
                needs: "exited",
            });
        }
        self.run_again(&pod).await?;
        container.renew();
        self.save_container_or_warn(container);
        Ok(())
    }
}
