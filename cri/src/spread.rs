//! Work that reads small files for many objects, spread over the processors.

use std::sync::LazyLock;
use std::thread::available_parallelism;

use futures::future::try_join_all;

use crate::operation::blocking;
use crate::status::Result;

/// Fewer objects than this are not worth another thread: a read of one takes about 15 µs, to wake a
/// thread about as long.
const SMALLEST_SHARE: usize = 16;

/// What `work` gives for each item, in their order; items for which it gives None are left out.
pub(crate) async fn spread<I, T, W>(items: Vec<I>, work: W) -> Result<Vec<T>>
where
    I: Send + 'static,
    T: Send + 'static,
    W: Fn(I) -> Option<T> + Clone + Send + 'static,
{
    static PROCESSORS: LazyLock<usize> =
        LazyLock::new(|| available_parallelism().map_or(1, usize::from));
    let share = items.len().div_ceil(*PROCESSORS).max(SMALLEST_SHARE);
    let mut items = items.into_iter();
    let shares = std::iter::from_fn(|| {
        let share: Vec<I> = items.by_ref().take(share).collect();
        (!share.is_empty()).then_some(share)
    });
    let parts = shares.map(|share| {
        let work = work.clone();
        blocking(move || Ok(share.into_iter().filter_map(work).collect::<Vec<_>>()))
    });
    let parts = try_join_all(parts).await?;
    Ok(parts.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn order_is_kept_and_what_is_left_out_is_left_out() {
        let odd = spread((0..1000).collect(), |n| (n % 2 == 1).then_some(n));
        let expected: Vec<i32> = (0..1000).filter(|n| n % 2 == 1).collect();
        assert_eq!(odd.await.unwrap(), expected);
        assert!(spread(Vec::<i32>::new(), Some).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn many_items_are_done_on_several_threads() {
        let threads = |count: u32| async move {
            let worked = spread((0..count).collect(), |_| {
                std::thread::sleep(Duration::from_millis(2));
                Some(std::thread::current().id())
            });
            let ids: HashSet<_> = worked.await.unwrap().into_iter().collect();
            ids.len()
        };
        assert_eq!(threads(16).await, 1);
        let processors = available_parallelism().unwrap().get();
        assert_eq!(threads(64).await, processors.min(4));
    }
}
