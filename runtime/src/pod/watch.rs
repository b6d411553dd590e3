//! Follows a pod's shim: exits are recorded, a lost shim ends its pod.

use std::sync::Arc;

use joey_shim_client::{Shim, ShimEvent};
use tokio::sync::broadcast::error::RecvError;

use crate::ids;
use crate::model::PodState;
use crate::objects::Pod;
use crate::runtime::Runtime;

impl Runtime {
    /// Follows the shim in a task of its own until it ends.
    pub(crate) fn watch(self: &Arc<Self>, pod: &Arc<Pod>, shim: &Arc<Shim>) {
        let (runtime, pod, shim) = (Arc::clone(self), Arc::clone(pod), Arc::clone(shim));
        let mut events = shim.events();
        tokio::spawn(async move {
            loop {
                let event = match events.recv().await {
                    Ok(event) => event,
                    Err(RecvError::Lagged(_)) => {
                        runtime.reconcile(&pod, &shim).await;
                        continue;
                    }
                    Err(RecvError::Closed) => break,
                };
                match event {
                    ShimEvent::Exit(exit) => {
                        let (runtime, pod) = (Arc::clone(&runtime), Arc::clone(&pod));
                        tokio::spawn(async move { runtime.container_exited(&pod, &exit).await });
                    }
                    ShimEvent::InitExit(_) => runtime.pod_lost(&pod, "the pod's init ended").await,
                    ShimEvent::AttachDropped(dropped) => tracing::info!(
                        container = dropped.container_id,
                        reason = dropped.reason,
                        "an attached client was dropped"
                    ),
                    ShimEvent::ExecExit(_) => {}
                    ShimEvent::Lost => break,
                }
            }
            runtime.shim_disconnected(&pod).await;
        });
    }

    async fn shim_disconnected(self: &Arc<Self>, pod: &Arc<Pod>) {
        let record = pod.record();
        if record.state != PodState::Ready {
            return;
        }
        let alive = record
            .shim
            .is_some_and(|(pid, ticks)| ids::start_ticks(pid) == Some(ticks));
        if alive {
            match Shim::connect(&self.config.pod_folder(&record.id)).await {
                Ok(shim) => {
                    let shim = Arc::new(shim);
                    pod.set_shim(Some(Arc::clone(&shim)));
                    self.watch(pod, &shim);
                    return;
                }
                Err(error) => {
                    tracing::warn!(pod = record.id, %error, "the shim can't be reached again");
                }
            }
        }
        self.pod_lost(pod, "the pod's shim ended").await;
    }
}
