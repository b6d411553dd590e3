//! Follows a pod's shim: exits are recorded, a lost shim ends its pod.

use std::sync::Arc;

use joey_shim_client::{Shim, ShimEvent};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::ids;
use crate::model::Process;
use crate::objects::Pod;
use crate::runtime::Runtime;

const INIT_ENDED: &str = "the pod's init ended";

impl Runtime {
    /// Follows the shim in a task of its own until it ends.
    pub(crate) fn watch(self: &Arc<Self>, pod: &Arc<Pod>, shim: &Arc<Shim>) {
        let (runtime, pod, shim) = (Arc::clone(self), Arc::clone(pod), Arc::clone(shim));
        let events = shim.events();
        let process = pod.record().shim;
        tokio::spawn(async move {
            // Lost before the subscription: nothing would come, and this task holds the shim.
            if !shim.is_lost() {
                runtime.follow(&pod, &shim, process, events).await;
            }
            drop(shim);
            runtime.take_up_again(&pod, process).await;
        });
    }

    async fn follow(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        shim: &Arc<Shim>,
        process: Option<Process>,
        mut events: Receiver<ShimEvent>,
    ) {
        loop {
            // Each in a task of its own: an end takes longer than the next event.
            let (runtime, pod) = (Arc::clone(self), Arc::clone(pod));
            match events.recv().await {
                Ok(ShimEvent::Exit(exit)) => {
                    let shim = Arc::clone(shim);
                    tokio::spawn(async move { runtime.container_exited(&pod, &shim, &exit).await });
                }
                Ok(ShimEvent::InitExit(_)) => {
                    tokio::spawn(async move { runtime.pod_lost(&pod, process, INIT_ENDED).await });
                }
                Ok(ShimEvent::AttachDropped(dropped)) => tracing::info!(
                    container = dropped.container_id,
                    reason = dropped.reason,
                    "an attached client was dropped"
                ),
                Ok(ShimEvent::ExecExit(_)) => {}
                Err(RecvError::Lagged(_)) => {
                    if !runtime.reconcile(&pod, shim).await {
                        return;
                    }
                    runtime.end_if_lost(&pod);
                }
                Ok(ShimEvent::Lost) | Err(RecvError::Closed) => return,
            }
        }
    }

    /// Ends a pod whose shim or init went while nobody could be told: before it was ready, or while
    /// the daemon was away.
    pub(crate) fn end_if_lost(self: &Arc<Self>, pod: &Arc<Pod>) {
        let record = pod.record();
        let shim_runs = record
            .shim
            .is_some_and(|(pid, ticks)| ids::start_ticks(pid) == Some(ticks));
        let init_runs = record.init_pid == 0 || ids::start_ticks(record.init_pid).is_some();
        if !shim_runs || !init_runs {
            let (runtime, pod) = (Arc::clone(self), Arc::clone(pod));
            tokio::spawn(async move {
                let cause = "the pod's shim or init ended";
                runtime.pod_lost(&pod, record.shim, cause).await;
            });
        }
    }
}
