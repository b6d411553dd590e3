//! The listener: tokens in, upgraded connections out.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request as HttpRequest, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{AttachRequest, Duplex, ExecRequest, Streams};
use crate::forward::{self, Target};
use crate::negotiate::{self, Refused};
use crate::remote::{self, Limits, Remote};
use crate::session::Connection;
use crate::tls::{Tls, TlsError, TlsFiles};
use crate::tokens::{Request, Tokens};

/// How long a client may take to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of a request's head.
const MAX_HEAD: usize = 16 * 1024;
/// Connections that have shown no token: when there are more, the oldest goes. A client shows its own
/// at once.
const STRANGERS: usize = 1024;
/// How long sessions get to end after `serve` was told to.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
/// A peer that vanished is noticed after some minutes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// Settings of the streaming server.
#[derive(Clone, Debug)]
pub struct StreamingConfig {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// A session without any traffic ends after this time.
    pub idle_timeout: Duration,
    /// How long a client may take to create its streams.
    pub creation_timeout: Duration,
    /// How long a URL is good.
    pub token_ttl: Duration,
    /// URLs that may wait for their client.
    pub max_pending: usize,
    /// Connections served at once; more are answered with 503.
    pub max_connections: usize,
    /// What URLs start with instead of `http://<address>`, for example behind a proxy.
    pub base_url: Option<String>,
    /// Serve TLS with this certificate; URLs then start with `https://<address>`.
    pub tls: Option<TlsFiles>,
}

impl Default for StreamingConfig {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            idle_timeout: Duration::from_secs(4 * 60 * 60),
            creation_timeout: Duration::from_secs(30),
            token_ttl: Duration::from_secs(60),
            max_pending: 1000,
            max_connections: 1000,
            base_url: None,
            tls: None,
        }
    }
}

/// Why the server can't start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address can't be listened on.
    #[error("listen on {address} for streaming")]
    Listen {
        /// The address of the configuration.
        address: SocketAddr,
        /// What listening said.
        #[source]
        source: io::Error,
    },
    /// The base URL is no URL with a host.
    #[error("streaming base URL {url:?} is not of the form http://host[:port][/path]")]
    BaseUrl {
        /// The configured text.
        url: String,
    },
    /// The certificate can't be used.
    #[error("serve streaming over TLS")]
    Tls(#[from] TlsError),
}

/// Why there is no URL for a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// No container is named (CRI: `InvalidArgument`).
    #[error("container_id is required")]
    MissingContainerId,
    /// No pod is named (CRI: `InvalidArgument`).
    #[error("pod_sandbox_id is required")]
    MissingPodId,
    /// A terminal has only one output (CRI: `InvalidArgument`).
    #[error("tty and stderr cannot both be true")]
    TtyWithStderr,
    /// Nothing would be streamed (CRI: `InvalidArgument`).
    #[error("one of stdin, stdout, or stderr must be set")]
    NoStream,
    /// Port 0, or more ports than a session can carry (CRI: `InvalidArgument`).
    #[error("ports must be from 1 to 65535, and at most 127")]
    BadPorts,
    /// Too many URLs wait for their clients (CRI: `ResourceExhausted`).
    #[error("{limit} streaming requests wait for their clients; try again later")]
    TooManyPending {
        /// The configured bound.
        limit: usize,
    },
}

/// The streaming server.
pub struct Server {
    config: StreamingConfig,
    listener: TcpListener,
    tls: Option<Tls>,
    local_address: SocketAddr,
    /// What URLs start with, without a slash at the end.
    base: String,
    /// The path part of `base`.
    base_path: String,
    tokens: Tokens,
    streams: Arc<dyn Streams>,
    places: Arc<Semaphore>,
    /// The last that came, whatever they are by now.
    strangers: Mutex<VecDeque<CancellationToken>>,
    sessions: TaskTracker,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.local_address)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Listens, without serving yet.
    ///
    /// # Errors
    /// When the address is taken or not the machine's, the base URL is malformed, or the certificate
    /// can't be used.
    pub async fn bind(
        config: StreamingConfig,
        streams: Arc<dyn Streams>,
    ) -> Result<Arc<Self>, BindError> {
        let tls = config.tls.clone().map(Tls::open).transpose()?;
        let address = config.address;
        let listen = |source| BindError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let local_address = listener.local_addr().map_err(listen)?;
        let base = match &config.base_url {
            None if tls.is_some() => format!("https://{local_address}"),
            None => format!("http://{local_address}"),
            Some(url) => url.trim_end_matches('/').to_owned(),
        };
        let base_path = match base.parse::<http::Uri>() {
            Ok(uri) if uri.scheme().is_some() && uri.host().is_some() => {
                uri.path().trim_end_matches('/').to_owned()
            }
            _ => return Err(BindError::BaseUrl { url: base }),
        };
        Ok(Arc::new(Self {
            tokens: Tokens::new(config.token_ttl, config.max_pending),
            places: Arc::new(Semaphore::new(config.max_connections)),
            strangers: Mutex::default(),
            sessions: TaskTracker::new(),
            config,
            listener,
            tls,
            local_address,
            base,
            base_path,
            streams,
        }))
    }

    /// The address that is listened on.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Reads the certificate's files again; sessions that run keep the old one.
    ///
    /// # Errors
    /// When they can't be used; the old certificate stays.
    pub fn reload_certificate(&self) -> Result<(), TlsError> {
        self.tls.as_ref().map_or(Ok(()), Tls::reload)
    }

    /// Serves until told to stop; sessions are cut then.
    pub async fn serve(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = shutdown.cancelled() => break,
            };
            match accepted {
                Ok((stream, _)) => self.clone().start(stream, &shutdown),
                Err(error) => {
                    // Out of descriptors, mostly: the next accept would fail as well.
                    tracing::warn!(%error, "accept a streaming connection");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
        self.sessions.close();
        if timeout(SHUTDOWN_GRACE, self.sessions.wait()).await.is_err() {
            tracing::warn!(left = self.sessions.len(), "streaming sessions did not end");
        }
    }

    /// The URL at which a client can run a command, once.
    ///
    /// # Errors
    /// When the request is invalid or too many wait.
    pub fn exec_url(&self, request: ExecRequest) -> Result<String, UrlError> {
        let ExecRequest {
            container_id,
            tty,
            stdin,
            stdout,
            stderr,
            ..
        } = &request;
        check(container_id, *tty, [*stdin, *stdout, *stderr])?;
        self.url(Request::Exec(request))
    }

    /// The URL at which a client can attach to a container, once.
    ///
    /// # Errors
    /// When the request is invalid or too many wait.
    pub fn attach_url(&self, request: AttachRequest) -> Result<String, UrlError> {
        let AttachRequest {
            container_id,
            tty,
            stdin,
            stdout,
            stderr,
        } = &request;
        check(container_id, *tty, [*stdin, *stdout, *stderr])?;
        self.url(Request::Attach(request))
    }

    /// The URL at which a client can forward connections to a pod, in one session. The ports
    /// matter only to clients that do not name them themselves.
    ///
    /// # Errors
    /// When the request is invalid or too many wait.
    pub fn port_forward_url(
        &self,
        pod_id: impl Into<String>,
        ports: Vec<u16>,
    ) -> Result<String, UrlError> {
        let pod_id = pod_id.into();
        if pod_id.is_empty() {
            return Err(UrlError::MissingPodId);
        }
        if ports.contains(&0) || ports.len() > usize::from(u8::MAX / 2) {
            return Err(UrlError::BadPorts);
        }
        self.url(Request::PortForward { pod_id, ports })
    }

    fn url(&self, request: Request) -> Result<String, UrlError> {
        let method = request.method();
        let limit = self.config.max_pending;
        let token = self
            .tokens
            .insert(request)
            .ok_or(UrlError::TooManyPending { limit })?;
        Ok(format!("{}/{method}/{token}", self.base))
    }

    fn start(self: Arc<Self>, stream: TcpStream, shutdown: &CancellationToken) {
        let stranger = self.new_stranger();
        let (sessions, shutdown) = (self.sessions.clone(), shutdown.clone());
        sessions.spawn(async move {
            let served = async {
                let agreed = tokio::select! {
                    agreed = self.connection(stream) => agreed,
                    () = stranger.cancelled() => None,
                };
                if let Some(agreement) = agreed {
                    self.session(agreement).await;
                }
            };
            tokio::select! {
                () = served => {}
                () = shutdown.cancelled() => {}
            }
        });
    }

    /// Cancelled when too many others came later.
    fn new_stranger(&self) -> CancellationToken {
        let stranger = CancellationToken::new();
        let mut strangers = self.strangers.lock();
        strangers.push_back(stranger.clone());
        if strangers.len() > STRANGERS
            && let Some(oldest) = strangers.pop_front()
        {
            oldest.cancel();
        }
        stranger
    }

    async fn connection(&self, stream: TcpStream) -> Option<Agreement> {
        if let Err(error) = prepare(&stream) {
            tracing::debug!(%error, "set options of a streaming connection");
        }
        let Some(tls) = &self.tls else {
            return self.request(stream).await;
        };
        match tls.accept(stream).await {
            Ok(stream) => self.request(stream).await,
            Err(error) => {
                tracing::debug!(%error, "TLS handshake of a streaming connection");
                None
            }
        }
    }

    /// Answers one request; what was agreed on where it is an upgrade.
    async fn request<S>(&self, stream: S) -> Option<Agreement>
    where
        S: Duplex + 'static,
    {
        let agreed = Mutex::new(None);
        let service = service_fn(|request| {
            let response = self.answer(request).map_or_else(
                |refused| refuse(&refused),
                |(response, agreement)| {
                    *agreed.lock() = Some(agreement);
                    response
                },
            );
            async { Ok::<_, std::convert::Infallible>(response) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "streaming request");
            return None;
        }
        agreed.into_inner()
    }

    async fn session(&self, agreement: Agreement) {
        match agreement.upgrade.await {
            Ok(upgraded) => self.run(agreement.plan, split(upgraded)).await,
            Err(error) => tracing::debug!(%error, "upgrade a streaming connection"),
        }
        drop(agreement.place);
    }

    fn answer(&self, mut request: HttpRequest<Incoming>) -> Result<(Answer, Agreement), Refused> {
        if request.method() != Method::GET && request.method() != Method::POST {
            return Err(Refused::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET and POST",
            ));
        }
        let not_found = || Refused::new(StatusCode::NOT_FOUND, "no such streaming request");
        let (method, token) = request
            .uri()
            .path()
            .strip_prefix(self.base_path.as_str())
            .and_then(|path| path.strip_prefix('/'))
            .and_then(|path| path.split_once('/'))
            .filter(|(method, token)| self.tokens.allows(token, method))
            .ok_or_else(not_found)?;
        // Only here: who has no token takes nobody's place.
        let place = self.places.clone().try_acquire_owned().map_err(|_| {
            let limit = self.config.max_connections;
            let text = format!("{limit} streaming connections are open");
            Refused::new(StatusCode::SERVICE_UNAVAILABLE, text)
        })?;
        let mut response = Response::new(Full::default());
        // The token is used by what is agreed on; a refused offer can be made again.
        let plan = if method == "portforward" {
            let agreed = negotiate::forward(request.headers(), &mut response)?;
            let Some(Request::PortForward { pod_id, ports }) = self.tokens.take(token) else {
                return Err(not_found());
            };
            Plan::Forward(agreed, pod_id, ports)
        } else {
            let agreed = negotiate::remote(request.headers(), &mut response)?;
            match self.tokens.take(token) {
                Some(Request::Exec(exec)) => Plan::Remote(agreed, Remote::Exec(exec)),
                Some(Request::Attach(attach)) => Plan::Remote(agreed, Remote::Attach(attach)),
                _ => return Err(not_found()),
            }
        };
        let upgrade = hyper::upgrade::on(&mut request);
        let agreement = Agreement {
            upgrade,
            plan,
            place,
        };
        Ok((response, agreement))
    }

    async fn run(&self, plan: Plan, connection: Connection) {
        let limits = Limits {
            idle: self.config.idle_timeout,
            creation: self.config.creation_timeout,
        };
        let streams = self.streams.clone();
        match plan {
            Plan::Remote(agreed, remote) => {
                remote::serve(connection, agreed, remote, streams, limits).await;
            }
            Plan::Forward(agreed, pod_id, ports) => {
                let target = Target { pod_id, streams };
                forward::serve(connection, agreed, target, ports, limits).await;
            }
        }
    }
}

type Answer = Response<Full<Bytes>>;

/// A request that is served.
#[derive(Debug)]
struct Agreement {
    upgrade: OnUpgrade,
    plan: Plan,
    place: OwnedSemaphorePermit,
}

/// What an upgraded connection is for.
#[derive(Debug)]
enum Plan {
    Remote(negotiate::Agreed<negotiate::Version>, Remote),
    Forward(negotiate::Agreed<()>, String, Vec<u16>),
}

fn check(container_id: &str, tty: bool, streams: [bool; 3]) -> Result<(), UrlError> {
    let [_, _, stderr] = streams;
    if container_id.is_empty() {
        Err(UrlError::MissingContainerId)
    } else if tty && stderr {
        Err(UrlError::TtyWithStderr)
    } else if streams == [false; 3] {
        Err(UrlError::NoStream)
    } else {
        Ok(())
    }
}

fn refuse(refused: &Refused) -> Answer {
    let mut response = Response::new(Full::from(format!("{}\n", refused.text)));
    refused.apply(&mut response);
    response
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(stream, true)?;
    rustix::net::sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    Ok(())
}

fn split(upgraded: Upgraded) -> Connection {
    match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => {
            let (reader, writer) = parts.io.into_inner().into_split();
            let buffered = BytesMut::from(&parts.read_buf[..]);
            Connection {
                reader: Box::new(reader),
                writer: Box::new(writer),
                buffered,
            }
        }
        Err(upgraded) => {
            let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
            let buffered = BytesMut::new();
            Connection {
                reader: Box::new(reader),
                writer: Box::new(writer),
                buffered,
            }
        }
    }
}
