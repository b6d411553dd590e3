//! `GET /metrics` over plain HTTP.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at once.
const MAX_CONNECTIONS: usize = 16;
/// The longest a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Rest after a failed accept, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The address for the metrics can't be had.
#[derive(Debug, Error)]
#[error("serve metrics on {address}")]
pub struct MetricsError {
    address: String,
    #[source]
    source: std::io::Error,
}

/// Serves what `render` gives, in a task of its own.
///
/// # Errors
/// When the address can't be had.
pub async fn serve<F>(address: &str, render: F) -> Result<(), MetricsError>
where
    F: Fn() -> String + Send + Sync + 'static,
{
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| MetricsError {
            address: address.to_owned(),
            source,
        })?;
    let render = Arc::new(render);
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a metrics connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let render = Arc::clone(&render);
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let response = answer(&request, &*render);
                    std::future::ready(Ok::<_, Infallible>(response))
                });
                let served = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
                if let Err(error) = served {
                    tracing::debug!(%error, "a metrics connection broke off");
                }
                drop(place);
            });
        }
    });
    Ok(())
}

fn answer(
    request: &Request<Incoming>,
    render: &dyn Fn() -> String,
) -> Response<http_body_util::Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, render()),
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, String::new()),
        _ => (StatusCode::NOT_FOUND, String::new()),
    };
    let mut response = Response::new(http_body_util::Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        hyper::header::CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("text/plain; version=0.0.4"),
    );
    response
}
