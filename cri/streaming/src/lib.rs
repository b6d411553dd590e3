//! The streaming server of exec, attach and port-forward: SPDY/3.1 and WebSocket, as the kubelet
//! and `crictl` speak them.
//!
//! A CRI call gets a URL with a single-use token from [`Server`]; the client connects to it,
//! upgrades the connection, and its streams are handed to the owner's [`Streams`].

mod activity;
mod api;
mod forward;
#[cfg(fuzzing)]
pub mod fuzzing;
mod negotiate;
mod outbound;
mod pipe;
pub mod relay;
mod remote;
mod resize;
mod server;
mod session;
mod spdy;
mod status;
mod tls;
mod tokens;
mod websocket;

pub use api::{
    AttachRequest, BoxedDuplex, BoxedReader, BoxedWriter, Duplex, ExecRequest, SessionIo,
    StreamError, Streams, TerminalSize,
};
pub use server::{BindError, Server, StreamingConfig, UrlError};
pub use tls::{TlsError, TlsFiles};
