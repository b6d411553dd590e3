//! When a connection last moved, for its idle timeout.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// The time of a connection's last frame, either way.
#[derive(Debug)]
pub(crate) struct Activity {
    last: Mutex<Instant>,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self {
            last: Mutex::new(Instant::now()),
        }
    }

    pub(crate) fn touch(&self) {
        *self.last.lock() = Instant::now();
    }

    /// Ends when nothing moved for `limit`.
    pub(crate) async fn idle_for(&self, limit: Duration) {
        loop {
            let due = *self.last.lock() + limit;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}
