//! Changes that a client which goes away must not leave half done.

use tracing::Instrument as _;

use super::status::Failure;

/// Runs a change in a task of its own and answers with its result.
pub async fn to_its_end<T>(
    change: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure>
where
    T: Send + 'static,
{
    let task = tokio::spawn(change.in_current_span());
    task.await
        .unwrap_or(Err(Failure::Runtime(joey_runtime::Error::Aborted)))
}
