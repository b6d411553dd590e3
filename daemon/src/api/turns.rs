//! One start of a container at a time.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// Whose turn it is, by container.
#[derive(Debug, Default)]
pub struct Turns(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

/// A turn; the next one's begins when it is dropped.
pub type Turn = OwnedMutexGuard<()>;

impl Turns {
    /// Waits for those who came before.
    pub async fn take(&self, container: &str) -> Turn {
        let turn = {
            let mut turns = self.0.lock();
            turns.retain(|_, turn| turn.strong_count() > 0);
            match turns.get(container).and_then(Weak::upgrade) {
                Some(turn) => turn,
                None => {
                    let turn = Arc::default();
                    turns.insert(container.to_owned(), Arc::downgrade(&turn));
                    turn
                }
            }
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn one_at_a_time_and_containers_apart() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        let other = turns.take("b").await;
        let second = tokio::time::timeout(Duration::from_millis(20), turns.take("a"));
        second.await.unwrap_err();
        drop(first);
        drop(turns.take("a").await);
        drop(other);
        drop(turns.take("c").await);
        assert_eq!(turns.0.lock().len(), 1, "what is over is forgotten");
    }
}
