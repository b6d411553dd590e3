//! Operations keyed by name: a retry joins the one under way and gets its result.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::error::{Error, Result};

type Outcome<T> = Option<std::result::Result<T, Arc<Error>>>;

/// The operations of one kind that are under way.
#[derive(Debug)]
pub(crate) struct Operations<T> {
    under_way: Arc<Mutex<HashMap<String, watch::Receiver<Outcome<T>>>>>,
}

impl<T: Clone + Send + Sync + 'static> Operations<T> {
    pub(crate) fn new() -> Self {
        Self {
            under_way: Arc::default(),
        }
    }

    /// Runs `operation` in its own task under `key`, or joins the one that runs already. A caller
    /// that goes away cancels nothing.
    pub(crate) async fn run<F, Fut>(&self, key: String, operation: F) -> Result<T>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T>> + Send + 'static,
    {
        let mut outcome = {
            let mut under_way = self.under_way.lock();
            if let Some(outcome) = under_way.get(&key) {
                outcome.clone()
            } else {
                let (sender, receiver) = watch::channel(None);
                under_way.insert(key.clone(), receiver.clone());
                let entry = Entry {
                    under_way: Arc::clone(&self.under_way),
                    key,
                };
                let future = operation();
                let span = tracing::Span::current();
                tokio::spawn(tracing::Instrument::instrument(
                    async move {
                        let result = future.await.map_err(Arc::new);
                        drop(entry);
                        sender.send_replace(Some(result));
                    },
                    span,
                ));
                receiver
            }
        };
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => match &*outcome {
                Some(Ok(value)) => Ok(value.clone()),
                Some(Err(error)) => Err(Error::Joined(Arc::clone(error))),
                None => Err(Error::Aborted),
            },
            Err(_) => Err(Error::Aborted),
        }
    }
}

/// Takes the key out also when the operation's task panics.
struct Entry<T> {
    under_way: Arc<Mutex<HashMap<String, watch::Receiver<Outcome<T>>>>>,
    key: String,
}

impl<T> Drop for Entry<T> {
    fn drop(&mut self) {
        self.under_way.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_retry_joins_and_a_dropped_caller_cancels_nothing() {
        let operations = Arc::new(Operations::<u32>::new());
        let runs = Arc::new(AtomicU32::new(0));
        let run = || {
            let runs = Arc::clone(&runs);
            operations.run("a".into(), move || async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(runs.fetch_add(1, Ordering::Relaxed) + 1)
            })
        };
        let cut_off = tokio::time::timeout(Duration::from_millis(1), run()).await;
        cut_off.unwrap_err();
        assert_eq!(run().await.unwrap(), 1);
        assert_eq!(run().await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_panic_frees_the_key() {
        let operations = Operations::<u32>::new();
        let broken = operations
            .run("a".into(), || async { panic!("test") })
            .await;
        assert!(matches!(broken, Err(Error::Aborted)));
        assert_eq!(
            operations
                .run("a".into(), || async { Ok(3) })
                .await
                .unwrap(),
            3
        );
    }
}
