//! The gRPC server: every service on every socket.

mod body;
mod connection;
mod lane;
mod layer;
mod outcome;
mod routes;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::select_all;
use joey_proto::api::joey_server::JoeyServer;
use thiserror::Error;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::task::TaskTracker;

pub use lane::Lanes;
pub use layer::Shared;

use layer::CallService;
use routes::Routes;

use crate::api::Api;
use crate::socket::{self, ListenError, Listener};

/// The largest message either way; the kubelet's limit too.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// After a connection that could not be taken, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serving failed.
#[derive(Debug, Error)]
pub enum ServeError {
    /// An address can't be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// No address is configured.
    #[error("listen: no address to serve on")]
    NoAddress,
}

/// What is served.
#[derive(Debug, Clone)]
pub struct Services {
    /// The CRI.
    pub cri: joey_cri::Service,
    /// Joey's own API.
    pub api: Api,
    /// What calls share.
    pub shared: Arc<Shared>,
}

/// The sockets, made before the daemon says that it is ready.
#[derive(Debug)]
pub struct Listeners(Vec<Listener>);

impl Listeners {
    /// Listens on every address.
    ///
    /// # Errors
    /// When there is none, or one can't be had; then none is left behind.
    pub fn open(addresses: &[String]) -> Result<Self, ServeError> {
        if addresses.is_empty() {
            return Err(ServeError::NoAddress);
        }
        let listeners = addresses.iter().map(|address| socket::listen(address));
        Ok(Self(listeners.collect::<Result<_, _>>()?))
    }
}

/// Serves until `stop` is done; then takes no more calls and gives those under way `grace`.
///
/// # Errors
/// When the server breaks off by itself.
pub async fn serve(
    listeners: Listeners,
    services: Services,
    grace: Duration,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let (streams, files): (Vec<_>, Vec<_>) = listeners
        .0
        .into_iter()
        .map(|listener| (UnixListenerStream::new(listener.listener), listener.file))
        .unzip();
    let stopping = services.shared.stopping.clone();
    let api = JoeyServer::new(services.api)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let routes = Routes {
        runtime: services.cri.runtime_server(),
        images: services.cri.image_server(),
        api,
    };
    let service = CallService::new(routes, services.shared);
    let mut incoming = select_all(streams);
    let connections = TaskTracker::new();
    tokio::pin!(stop);
    let ended = loop {
        tokio::select! {
            () = &mut stop => break Ok(()),
            accepted = incoming.next() => match accepted {
                Some(Ok(stream)) => {
                    connections.spawn(connection::serve(stream, service.clone(), stopping.clone()));
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "a connection can't be taken");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                None => break Err(ServeError::NoAddress),
            },
        }
    };
    stopping.cancel();
    connections.close();
    if tokio::time::timeout(grace, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!(?grace, "calls were still under way and are cut off");
    }
    drop(files);
    ended
}
