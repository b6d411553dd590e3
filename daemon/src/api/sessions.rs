//! Who still uses a container that has ended: its streams are delivered before its pod goes.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// How many sessions each container has.
#[derive(Debug, Clone, Default)]
pub struct Sessions(Arc<Mutex<HashMap<String, watch::Sender<usize>>>>);

/// One session; ends when dropped.
#[derive(Debug)]
pub struct Session {
    sessions: Sessions,
    container: String,
}

impl Sessions {
    /// Begins a session.
    #[must_use]
    pub fn enter(&self, container: &str) -> Session {
        let mut sessions = self.0.lock();
        sessions
            .entry(container.to_owned())
            .or_default()
            .send_modify(|count| *count += 1);
        Session {
            sessions: self.clone(),
            container: container.to_owned(),
        }
    }

    /// Waits until a container has no session.
    pub async fn idle(&self, container: &str) {
        self.at_most(container, 0).await;
    }

    async fn at_most(&self, container: &str, limit: usize) {
        let receiver = self.0.lock().get(container).map(watch::Sender::subscribe);
        if let Some(mut receiver) = receiver {
            // An error says that the last session took the counter along.
            drop(receiver.wait_for(|count| *count <= limit).await);
        }
    }
}

impl Session {
    /// Waits until the container has no other session.
    pub async fn alone(&self) {
        self.sessions.at_most(&self.container, 1).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut sessions = self.sessions.0.lock();
        if let Some(count) = sessions.get(&self.container) {
            count.send_modify(|count| *count = count.saturating_sub(1));
            if *count.borrow() == 0 {
                sessions.remove(&self.container);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn idle_waits_for_the_last_session() {
        let sessions = Sessions::default();
        sessions.idle("a").await;
        let (first, second) = (sessions.enter("a"), sessions.enter("a"));
        let waiting = tokio::spawn({
            let sessions = sessions.clone();
            async move { sessions.idle("a").await }
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        waiting.await.unwrap();
        assert!(sessions.0.lock().is_empty());
    }
}
