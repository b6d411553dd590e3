//! What runs behind the streaming server: sessions of the runtime, relayed to their clients.

use std::future::pending;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use joey_runtime::{Error, ExecConfig, ExecSession, Runtime};
use joey_streaming::relay::{self, ClientEnds, CopyError, PipeReader, PipeWriter, ProcessFds};
use joey_streaming::{
    AttachRequest, BoxedDuplex, BoxedWriter, ExecRequest, SessionIo, StreamError, Streams,
    TerminalSize,
};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long a forwarded connection may still send after the pod's side ended.
const LINGER: Duration = Duration::from_secs(1);
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
        let exit = match relay_exec(&mut session, io).await? {
            Some(exit) => exit,
            // The client left and the streams are closed; the command ends on its own.
            None => session.wait().await,
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
        let SessionIo {
            stdin,
            stdout,
            stderr,
            resize,
            closed,
        } = io;
        let no_output = session.stdout.is_none() && session.stderr.is_none();
        let process = session.stdin.map(PipeWriter::from_fd).transpose();
        let process = process.map_err(|source| StreamError::Relay {
            stream: "stdin",
            source,
        })?;
        let input = async {
            let (Some(client), Some(process)) = (stdin, process) else {
                return Ok(());
            };
            relay::copy_input(client, process)
                .await
                .map_err(|source| StreamError::Relay {
                    stream: "stdin",
                    source,
                })
        };
        let outputs = async {
            let (out, err) = tokio::join!(
                attached_output("stdout", session.stdout, stdout),
                attached_output("stderr", session.stderr, stderr),
            );
            out.and(err)
        };
        let sizes = self.resize_container(&id, resize);
        let work = async {
            if no_output {
                return input.await;
            }
            tokio::select! {
                ended = outputs => ended,
                Err(error) = input => Err(error),
            }
        };
        tokio::select! {
            ended = work => ended?,
            () = closed.cancelled() => return Ok(()),
            () = sizes => {}
        }
        if no_output {
            Ok(())
        } else {
            self.check_ended(&id).await
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
        carry(
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

/// Relays until the command ended; None when the client left before.
async fn relay_exec(
    session: &mut ExecSession,
    io: SessionIo,
) -> Result<Option<joey_runtime::Result<i32>>, StreamError> {
    let SessionIo {
        stdin,
        stdout,
        stderr,
        resize,
        closed,
    } = io;
    let (fds, master) = host_ends(session)?;
    let client = ClientEnds {
        stdin,
        stdout,
        stderr,
    };
    let relayed = Box::pin(relay::process(fds, client, session.wait(), relay::DRAIN));
    let exited = tokio::select! {
        exited = relayed => Some(exited),
        () = closed.cancelled() => None,
        () = resize_terminal(master, resize) => None,
    };
    exited.transpose().map_err(|source| StreamError::Relay {
        stream: "the command",
        source,
    })
}

/// The ends to relay and, for a terminal, one more descriptor of its master to set its size.
fn host_ends(session: &mut ExecSession) -> Result<(ProcessFds, Option<OwnedFd>), StreamError> {
    let Some(master) = session.master.take() else {
        let fds = ProcessFds {
            stdin: session.stdin.take(),
            stdout: session.stdout.take(),
            stderr: session.stderr.take(),
        };
        return Ok((fds, None));
    };
    let clone = |master: &OwnedFd| {
        let failed = |source| StreamError::Relay {
            stream: "the terminal",
            source,
        };
        master.try_clone().map_err(failed)
    };
    let fds = ProcessFds {
        stdin: Some(clone(&master)?),
        stdout: Some(clone(&master)?),
        stderr: None,
    };
    Ok((fds, Some(master)))
}

/// Never ends. The descriptor is let go with the last size, so that a terminal whose client has
/// left hangs up.
async fn resize_terminal(master: Option<OwnedFd>, mut sizes: mpsc::Receiver<TerminalSize>) {
    if let Some(master) = master {
        while let Some(TerminalSize { width, height }) = sizes.recv().await {
            let size = Winsize {
                ws_row: height,
                ws_col: width,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            if let Err(error) = tcsetwinsize(&master, size) {
                tracing::debug!(%error, "resize a command's terminal");
            }
        }
    }
    pending::<()>().await;
}

/// Copies one output of a container to its client; a client that takes no more is no error.
async fn attached_output(
    stream: &'static str,
    process: Option<OwnedFd>,
    client: Option<BoxedWriter>,
) -> Result<(), StreamError> {
    let (Some(process), Some(mut client)) = (process, client) else {
        return Ok(());
    };
    let failed = |source| StreamError::Relay { stream, source };
    let mut process = PipeReader::from_fd(process).map_err(failed)?;
    match relay::copy_output(&mut process, &mut client, &CancellationToken::new()).await {
        Ok(_) | Err(CopyError::Write(_)) => Ok(()),
        Err(CopyError::Read(source)) => Err(failed(source)),
    }
}

/// Carries a connection both ways. An end sent by the client is passed on and the pod's answer
/// awaited; after the pod's end the client has a moment to finish.
async fn carry<CR, CW, PR, PW>(
    client_read: &mut CR,
    client_write: &mut CW,
    pod_read: &mut PR,
    pod_write: &mut PW,
) -> Result<(), StreamError>
where
    CR: AsyncRead + Unpin,
    CW: AsyncWrite + Unpin,
    PR: AsyncRead + Unpin,
    PW: AsyncWrite + Unpin,
{
    let upward = async {
        let copied = tokio::io::copy(client_read, pod_write).await;
        // The pod may have closed already; what it answered is still carried.
        drop(pod_write.shutdown().await);
        copied
    };
    let downward = async {
        tokio::io::copy(pod_read, client_write).await?;
        client_write.shutdown().await
    };
    tokio::pin!(upward, downward);
    let ended = tokio::select! {
        ended = &mut downward => {
            drop(timeout(LINGER, upward).await);
            ended
        }
        _ = &mut upward => downward.await,
    };
    ended.map_err(|source| StreamError::Relay {
        stream: "the connection",
        source,
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    /// The far ends of a carried connection: the client's and the pod's.
    fn carried() -> (tokio::io::DuplexStream, tokio::io::DuplexStream) {
        let (client, near_client) = duplex(1 << 16);
        let (pod, near_pod) = duplex(1 << 16);
        tokio::spawn(async move {
            let (mut client_read, mut client_write) = tokio::io::split(near_client);
            let (mut pod_read, mut pod_write) = tokio::io::split(near_pod);
            carry(
                &mut client_read,
                &mut client_write,
                &mut pod_read,
                &mut pod_write,
            )
            .await
            .unwrap();
        });
        (client, pod)
    }

    #[tokio::test]
    async fn a_pod_answers_after_the_clients_end() {
        let (mut client, mut pod) = carried();
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = String::new();
        pod.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        pod.write_all(b"answer").await.unwrap();
        drop(pod);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
    }

    #[tokio::test]
    async fn a_client_that_stays_open_does_not_hold_a_closed_pod() {
        let (mut client, mut pod) = carried();
        pod.write_all(b"bye").await.unwrap();
        pod.shutdown().await.unwrap();
        let mut all = String::new();
        client.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "bye");
    }
}
