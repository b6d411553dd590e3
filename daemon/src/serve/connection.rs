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
    server.timer(TokioTimer::new());
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
