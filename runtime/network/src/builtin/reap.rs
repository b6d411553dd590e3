//! Interfaces of pods that are gone, removed where the kernel has not done so itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::{Inner, detach};
use crate::worker::Home;

/// How long the kernel has to end the pod's namespace, and its interfaces with it.
const GRACE: Duration = Duration::from_millis(500);

/// Interfaces to look after, by index: a pod that comes back has another one of the same name.
#[derive(Debug, Default)]
pub(super) struct Reaper {
    links: Mutex<Vec<u32>>,
    some: Arc<Notify>,
}

/// A running reaper; it ends with this value.
#[derive(Debug)]
pub(super) struct Reaping(AbortHandle);

impl Drop for Reaping {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Reaper {
    pub(super) fn later(&self, link: u32) {
        self.lock().push(link);
        self.some.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts to look after the interfaces.
pub(super) fn start(inner: &Arc<Inner>) -> Reaping {
    let some = Arc::clone(&inner.reaper.some);
    let inner = Arc::downgrade(inner);
    let task = tokio::spawn(async move {
        loop {
            some.notified().await;
            tokio::time::sleep(GRACE).await;
            let Some(inner) = inner.upgrade() else { return };
            let workers = inner.workers.clone();
            let links = std::mem::take(&mut *inner.reaper.lock());
            for link in links {
                let reap = move |home: &mut Home| {
                    if let Err(error) = detach::remove_link_by_index(home, link) {
                        tracing::warn!(link, %error, "interface stays behind");
                    }
                };
                if workers.run(reap).await.is_err() {
                    return;
                }
            }
        }
    });
    Reaping(task.abort_handle())
}
