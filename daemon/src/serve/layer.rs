//! What every call goes through: a place in its lane and a measurement; calls of Joey's own API get
//! their operation id and span here too, the CRI's have them from its service.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hyper::{Request, Response};
use opentelemetry::trace::FutureExt;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tower::Service;
use tracing::{Instrument, Span};

use super::body::{CallBody, Ending, status_of};
use super::lane::{self, Lane, Lanes};
use super::outcome::Outcome;
use crate::metrics::Calls;
use crate::traces;

/// What calls share.
#[derive(Debug)]
pub struct Shared {
    /// Limits.
    pub lanes: Lanes,
    /// Measurements.
    pub calls: Calls,
    /// Cancelled when the daemon stops: ends what stays open.
    pub stopping: CancellationToken,
    /// Whether spans go to a collector.
    traced: bool,
    started: u64,
    next: AtomicU64,
}

impl Shared {
    /// For one daemon.
    #[must_use]
    pub fn new(lanes: Lanes, traced: bool) -> Self {
        let started = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Self {
            lanes,
            calls: Calls::default(),
            stopping: CancellationToken::new(),
            traced,
            started: started.as_secs(),
            next: AtomicU64::new(1),
        }
    }

    /// Differs from that of every other call, before and after a restart too.
    fn operation_id(&self) -> String {
        format!(
            "{:08x}{:06x}",
            self.started,
            self.next.fetch_add(1, Ordering::Relaxed)
        )
    }
}

/// Serves one call after the other, each in its lane.
#[derive(Debug, Clone)]
pub struct CallService<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> CallService<S> {
    /// Around `inner`.
    #[must_use]
    pub fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }
}

impl<S> Service<Request<Body>> for CallService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone takes the next call; this one was polled ready.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        let shared = Arc::clone(&self.shared);
        let operation = shared.operation_id();
        let path = request.uri().path().to_owned();
        // The spans that the call makes belong to the caller's.
        let caller = match shared.traced {
            true => traces::caller(request.headers()),
            false => None,
        };
        let attached = caller.clone().map(opentelemetry::Context::attach);
        let span = span(&request, &path, &operation);
        drop(attached);
        let served = serve(inner, shared, request, path, operation).instrument(span);
        match caller {
            Some(caller) => Box::pin(served.with_context(caller)),
            None => Box::pin(served),
        }
    }
}

/// Whether a method is of Joey's own API.
pub fn is_own(path: &str) -> bool {
    path.starts_with("/joey.")
}

fn span(request: &Request<Body>, path: &str, operation: &str) -> Span {
    if !is_own(path) {
        return Span::none();
    }
    let method = path.rsplit('/').next().unwrap_or_default();
    let parent = request
        .headers()
        .get("traceparent")
        .and_then(|value| value.to_str().ok());
    match parent.and_then(trace_context) {
        Some((trace, parent)) => tracing::info_span!("call", method, operation, trace, parent),
        None => tracing::info_span!("call", method, operation),
    }
}

/// Trace and span id of a W3C `traceparent`.
fn trace_context(value: &str) -> Option<(&str, &str)> {
    let mut parts = value.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, length| {
        text.len() == length
            && text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let given = |text: &str| text.bytes().any(|byte| byte != b'0');
    let valid = hex(version, 2) && version != "ff" && hex(flags, 2);
    (valid && hex(trace, 32) && hex(span, 16) && given(trace) && given(span))
        .then_some((trace, span))
}

async fn serve<S>(
    mut inner: S,
    shared: Arc<Shared>,
    request: Request<Body>,
    path: String,
    operation: String,
) -> Result<Response<Body>, Infallible>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let begun = Instant::now();
    let lane = Lane::of(&path);
    let (response, served) = match shared.lanes.enter(lane).await {
        Err(refused) => {
            if !is_own(&path) {
                tracing::warn!(method = path, operation, "refused: too many calls wait");
            }
            (refused.into_http(), None)
        }
        Ok(place) => {
            let stopping = lane::stays_open(&path).then(|| shared.stopping.clone());
            let answered = async { inner.call(request).await };
            let response = match &stopping {
                None => answered.await?,
                Some(token) => tokio::select! {
                    response = answered => response?,
                    () = token.cancelled() => Status::unavailable("the daemon is stopping").into_http(),
                },
            };
            (response, Some((stopping, place)))
        }
    };
    // What reaches the CRI's service has its name from there.
    let name = (is_own(&path) || served.is_none()).then_some(operation);
    let outcome = Outcome::new(shared, path, begun.elapsed(), Span::current());
    let mut ending = Ending { name, outcome };
    let (mut head, body) = response.into_parts();
    // An error is told at once, anything else after the answer.
    match status_of(&head.headers) {
        Some(_) => ending.tell(&mut head.headers),
        None => ending.name(&mut head.headers),
    }
    let body = CallBody::new(body, ending, served);
    Ok(Response::from_parts(head, Body::new(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_contexts() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let parent = "00f067aa0ba902b7";
        assert_eq!(
            trace_context(&format!("00-{trace}-{parent}-01")),
            Some((trace, parent))
        );
        for wrong in [
            String::new(),
            format!("ff-{trace}-{parent}-01"),
            format!("00-{trace}-{parent}"),
            format!("00-{trace}-0000000000000000-01"),
            format!("00-{}-{parent}-01", trace.to_uppercase()),
        ] {
            assert_eq!(trace_context(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn operation_ids_differ() {
        let shared = Shared::new(Lanes::new(&crate::config::Limits::default()), false);
        assert_ne!(shared.operation_id(), shared.operation_id());
    }
}
