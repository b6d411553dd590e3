//! One client's HTTP/2 connection.
//!
//! Not tonic's own server: that ends a call by itself at the client's deadline, with CANCELLED, and
//! races the client's DEADLINE_EXCEEDED. The work goes on in either case, and the client knows its
//! own clock.

use std::convert::Infallible;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::{Service, ServiceExt};

/// What a stream may send before somebody reads it, bytes.
const STREAM_WINDOW: u32 = 256 << 10;
/// The same of all streams of a connection: those that nobody reads must leave room for other calls,
/// such as the signal that ends the process they go to.
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Serves the connection to its end; once `stopping` is cancelled it takes no new calls.
pub(super) async fn serve<S>(stream: UnixStream, service: S, stopping: CancellationToken)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let calls = service_fn(move |request: Request<Incoming>| {
        let service = service.clone();
        service.oneshot(request.map(|body| Body::new(body.boxed_unsync())))
    });
    let mut server = http2::Builder::new(TokioExecutor::new());
    server
        .timer(TokioTimer::new())
        // The lanes bound the calls. A limit here would be one for all lanes together: a client has
        // one connection, and its stops would hold up its other calls.
        .max_concurrent_streams(None)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let connection = server.serve_connection(TokioIo::new(stream), calls);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}
