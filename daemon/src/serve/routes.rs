//! Which service a call is for.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use hyper::{Request, Response};
use joey_proto::api::joey_server::JoeyServer;
use joey_proto::cri::image_service_server::ImageServiceServer;
use joey_proto::cri::runtime_service_server::RuntimeServiceServer;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use crate::api::Api;

/// Every service of the daemon.
#[derive(Debug, Clone)]
pub struct Routes {
    /// The CRI's pods and containers.
    pub runtime: RuntimeServiceServer<joey_cri::Service>,
    /// The CRI's images.
    pub images: ImageServiceServer<joey_cri::Service>,
    /// Joey's own API.
    pub api: JoeyServer<Api>,
}

impl Service<Request<Body>> for Routes {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(())) // as all of them are
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match service_of(request.uri().path()) {
            RuntimeServiceServer::<joey_cri::Service>::NAME => self.runtime.call(request),
            ImageServiceServer::<joey_cri::Service>::NAME => self.images.call(request),
            JoeyServer::<Api>::NAME => self.api.call(request),
            other => {
                let status = Status::unimplemented(format!("there is no service {other:?}"));
                Box::pin(std::future::ready(Ok(status.into_http())))
            }
        }
    }
}

fn service_of(path: &str) -> &str {
    path.trim_start_matches('/')
        .split('/')
        .next()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_the_first_part_of_the_path() {
        assert_eq!(service_of("/joey.v1.Joey/Version"), JoeyServer::<Api>::NAME);
        assert_eq!(service_of("/"), "");
    }
}
