//! One call: its id, its span, its log line on failure.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tonic::{Code, Request, Response, Status};
use tracing::{Instrument, Span};

use crate::status::{Failure, Result};

/// A new operation id: eight digits of this process and eight of a counter.
fn new_id() -> String {
    static PROCESS: LazyLock<u64> =
        LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    static COUNTER: AtomicU32 = AtomicU32::new(1);
    let process = *PROCESS & u64::from(u32::MAX);
    format!(
        "{process:08x}{:08x}",
        COUNTER.fetch_add(1, Ordering::Relaxed)
    )
}

/// Serves one call: the answer, or the status with the operation's id, which the log shows too.
///
/// `span` makes the call's span from the id and the caller's `traceparent`: its name has to be known
/// at compile time.
pub(crate) async fn run<Q, A, F>(
    span: impl FnOnce(&str, Option<&str>) -> Span,
    request: Request<Q>,
    serve: impl FnOnce(Q) -> F,
) -> std::result::Result<Response<A>, Status>
where
    F: Future<Output = Result<A>>,
{
    let id = new_id();
    let caller = request
        .metadata()
        .get("traceparent")
        .and_then(|value| value.to_str().ok());
    let span = span(&id, caller);
    let served = serve(request.into_inner()).instrument(span.clone()).await;
    served.map(Response::new).map_err(|failure| {
        let status = failure.to_status(&id);
        span.in_scope(|| log(&failure, status.code()));
        // After the message, which holds the same: these are for traces.
        span.record("otel.status_code", "ERROR");
        span.record("otel.status_description", failure.message());
        status
    })
}

/// A function that makes the spans of one RPC, for [`run`].
macro_rules! span_of {
    ($rpc:literal) => {
        |operation: &str, traceparent: Option<&str>| {
            tracing::info_span!(
                $rpc,
                %operation,
                traceparent,
                otel.status_code = tracing::field::Empty,
                otel.status_description = tracing::field::Empty,
            )
        }
    };
}
pub(crate) use span_of;

fn log(failure: &Failure, code: Code) {
    let error = failure.message();
    match code {
        // What a client may well ask for, and gets an answer to.
        Code::NotFound | Code::InvalidArgument | Code::Unimplemented => {
            tracing::debug!(?code, %error, "refused");
        }
        _ => tracing::warn!(?code, %error, "failed"),
    }
}

/// Nanoseconds since the epoch.
pub(crate) fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
        })
}

/// Runs a change in a task of its own, so that a caller who goes away cancels nothing.
pub(crate) async fn detached<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    tokio::spawn(work.in_current_span())
        .await
        .unwrap_or(Err(Failure::Aborted))
}

/// Runs what reads many small files off the threads that serve calls.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(Failure::Aborted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_are_short() {
        let (a, b) = (new_id(), new_id());
        assert_eq!(a.len(), 16);
        assert_ne!(a, b);
    }

    #[tokio::test]
    async fn the_status_names_the_operation() {
        let failed = run(span_of!("Version"), Request::new(()), |()| async {
            Err::<(), _>(Failure::Invalid("no".into()))
        });
        let status = failed.await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(
            status.message().starts_with("no (operation "),
            "{}",
            status.message()
        );
    }
}
