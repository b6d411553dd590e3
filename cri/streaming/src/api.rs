//! What the server asks of its owner, and what it hands over: requests, streams, errors.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A readable end of a client's stream.
pub type BoxedReader = Box<dyn AsyncRead + Send + Unpin>;
/// A writable end of a client's stream.
pub type BoxedWriter = Box<dyn AsyncWrite + Send + Unpin>;

/// Both ends of one stream.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A forwarded connection: reads give what the client sends, writes go to the client.
pub type BoxedDuplex = Box<dyn Duplex>;

/// A command to run in a container (CRI `ExecRequest`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// The container.
    pub container_id: String,
    /// The command with its arguments.
    pub cmd: Vec<String>,
    /// Whether the command gets a terminal; standard error is then part of standard output.
    pub tty: bool,
    /// Whether the client sends standard input.
    pub stdin: bool,
    /// Whether the client takes standard output.
    pub stdout: bool,
    /// Whether the client takes standard error; refused together with `tty`.
    pub stderr: bool,
}

/// The streams of a container's main process (CRI `AttachRequest`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttachRequest {
    /// The container.
    pub container_id: String,
    /// Whether the container has a terminal.
    pub tty: bool,
    /// Whether the client sends standard input.
    pub stdin: bool,
    /// Whether the client takes standard output.
    pub stdout: bool,
    /// Whether the client takes standard error; refused together with `tty`.
    pub stderr: bool,
}

/// The size of a client's terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct TerminalSize {
    /// Columns.
    #[serde(rename = "Width", alias = "width")]
    pub width: u16,
    /// Rows.
    #[serde(rename = "Height", alias = "height")]
    pub height: u16,
}

/// The client's side of an exec or attach session.
///
/// Reading standard input ends with zero bytes when the client closed it, and with
/// `ConnectionReset` when the client went away. Writing fails with `BrokenPipe` once the client
/// takes no more. Shutting down (or dropping) a writer tells the client that this stream ended.
pub struct SessionIo {
    /// Standard input, where it was asked for.
    pub stdin: Option<BoxedReader>,
    /// Standard output, where it was asked for.
    pub stdout: Option<BoxedWriter>,
    /// Standard error, where it was asked for.
    pub stderr: Option<BoxedWriter>,
    /// Sizes of the client's terminal. A slow receiver misses sizes, but never the last one.
    pub resize: mpsc::Receiver<TerminalSize>,
    /// Cancelled when the client's connection is gone.
    pub closed: CancellationToken,
}

impl fmt::Debug for SessionIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionIo")
            .field("stdin", &self.stdin.is_some())
            .field("stdout", &self.stdout.is_some())
            .field("stderr", &self.stderr.is_some())
            .field("closed", &self.closed.is_cancelled())
            .finish_non_exhaustive()
    }
}

/// Why a session could not be served. The client is shown the text with its chain of causes.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The container is unknown or no longer there.
    #[error("container {id} not found")]
    ContainerNotFound {
        /// The container asked for.
        id: String,
    },
    /// The container is there but has no process.
    #[error("container {id} is not running")]
    ContainerNotRunning {
        /// The container asked for.
        id: String,
    },
    /// The pod is unknown or no longer ready.
    #[error("pod {id} not found")]
    PodNotFound {
        /// The pod asked for.
        id: String,
    },
    /// Nothing in the pod answers at the port.
    #[error("connect to port {port} in pod {id}")]
    Connect {
        /// The pod.
        id: String,
        /// The TCP port.
        port: u16,
        /// What connecting said.
        #[source]
        source: io::Error,
    },
    /// Carrying data between the client and the process or pod failed.
    #[error("relay {stream}")]
    Relay {
        /// Which stream, for example `stdout`.
        stream: &'static str,
        /// The failure.
        #[source]
        source: io::Error,
    },
    /// Anything else, with its own text.
    #[error(transparent)]
    Other(#[from] Box<dyn StdError + Send + Sync>),
}

/// What runs behind the server.
///
/// Each call runs in its own task. `attach` and `port_forward` are dropped a moment after the
/// client went away; `exec` is not: it ends with its process, and may watch
/// [`SessionIo::closed`]. All output must have been written when a call returns.
#[async_trait]
pub trait Streams: Send + Sync + 'static {
    /// Runs a command in a container until it ends and gives its exit code.
    ///
    /// # Errors
    /// When the command could not be run; a failing command is `Ok` with its code.
    async fn exec(&self, request: ExecRequest, io: SessionIo) -> Result<i32, StreamError>;

    /// Joins the streams of a container's main process until it ends or the client leaves.
    ///
    /// # Errors
    /// When the container has no process to attach to, or its streams fail.
    async fn attach(&self, request: AttachRequest, io: SessionIo) -> Result<(), StreamError>;

    /// Carries one connection to a TCP port in a pod's network namespace.
    ///
    /// # Errors
    /// When the port can't be reached, or the connection fails.
    async fn port_forward(
        &self,
        pod_id: &str,
        port: u16,
        stream: BoxedDuplex,
    ) -> Result<(), StreamError>;
}

/// The error's text followed by those of its causes.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
