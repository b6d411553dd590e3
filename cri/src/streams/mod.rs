//! What runs behind the streaming server: sessions of the runtime, relayed to their clients.

mod attach;
mod exec;
mod forward;

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use joey_runtime::{Error, ExecConfig, Runtime};
use joey_streaming::relay::ClientEnds;
use joey_streaming::{
    AttachRequest, BoxedDuplex, ExecRequest, SessionIo, StreamError, Streams, TerminalSize,
};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long after the end of its output a container's own end may become known.
const END_KNOWN: Duration = Duration::from_secs(2);

/// Serves streaming sessions from a runtime.
#[derive(Debug, Clone)]
pub struct RuntimeStreams {
    runtime: Arc<Runtime>,
}

impl RuntimeStreams {
    /// Serves sessions from `runtime`.
    #[must_use]
    pub fn new(runtime: Arc<Runtime>) -> Self {
        Self { runtime }
    }
}

#[async_trait]
impl Streams for RuntimeStreams {
    async fn exec(&self, request: ExecRequest, io: SessionIo) -> Result<i32, StreamError> {
        let id = request.container_id;
        let config = ExecConfig {
            command: request.cmd,
            tty: request.tty,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            ..ExecConfig::default()
        };
        let started = self.runtime.exec(&id, config).await;
        let mut session = started.map_err(|error| container_error(&id, error))?;
        let exit = match exec::relay_command(&mut session, io).await? {
            Some(exit) => exit,
            // The client left and its streams are closed: the command ends by itself, as other
            // runtimes have it, and nothing else waits for it.
            None => {
                tokio::spawn(async move { session.wait().await });
                return Err(StreamError::Other("the client left".into()));
            }
        };
        exit.map_err(|error| container_error(&id, error))
    }

    async fn attach(&self, request: AttachRequest, io: SessionIo) -> Result<(), StreamError> {
        let id = request.container_id;
        let attached = self
            .runtime
            .attach(&id, request.stdin, request.stdout, request.stderr)
            .await;
        let session = attached.map_err(|error| container_error(&id, error))?;
        let has_output = session.stdout.is_some() || session.stderr.is_some();
        let client = ClientEnds {
            stdin: io.stdin,
            stdout: io.stdout,
            stderr: io.stderr,
        };
        tokio::select! {
            ended = attach::relay_container(session, client) => ended?,
            () = io.closed.cancelled() => return Ok(()),
            () = self.resize_container(&id, io.resize) => {}
        }
        if has_output {
            self.check_ended(&id).await
        } else {
            Ok(())
        }
    }

    async fn port_forward(
        &self,
        pod_id: &str,
        port: u16,
        stream: BoxedDuplex,
    ) -> Result<(), StreamError> {
        let connected = self.runtime.connect_port(pod_id, port).await;
        let pod = connected.map_err(|error| match error.root() {
            Error::NotFound { .. } | Error::WrongState { .. } => StreamError::PodNotFound {
                id: pod_id.to_owned(),
            },
            _ => StreamError::Other(Box::new(error)),
        })?;
        let (mut pod_read, mut pod_write) = pod.into_split();
        let (mut client_read, mut client_write) = tokio::io::split(stream);
        forward::carry(
            &mut client_read,
            &mut client_write,
            &mut pod_read,
            &mut pod_write,
        )
        .await
    }
}

impl RuntimeStreams {
    /// Never ends: a client without a terminal sends no sizes, and that says nothing.
    async fn resize_container(&self, id: &str, mut sizes: mpsc::Receiver<TerminalSize>) {
        while let Some(size) = sizes.recv().await {
            if let Err(error) = self.runtime.resize(id, size.width, size.height).await {
                tracing::debug!(error = error.chain(), "resize a container's terminal");
            }
        }
        pending::<()>().await;
    }

    /// The output of an attached container ends with the container, or when the client read too
    /// slowly for too long.
    async fn check_ended(&self, id: &str) -> Result<(), StreamError> {
        match timeout(END_KNOWN, self.runtime.wait_container(id)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(StreamError::Other(
                "the client read the container's output too slowly and was detached".into(),
            )),
        }
    }
}

fn container_error(id: &str, error: Error) -> StreamError {
    match error.root() {
        Error::NotFound { .. } => StreamError::ContainerNotFound { id: id.to_owned() },
        Error::WrongState { .. } => StreamError::ContainerNotRunning { id: id.to_owned() },
        _ => StreamError::Other(Box::new(error)),
    }
}

fn failed(stream: &'static str) -> impl Fn(io::Error) -> StreamError {
    move |source| StreamError::Relay { stream, source }
}
