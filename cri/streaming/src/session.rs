//! One connection after its upgrade: a task that reads, a task that writes, and their end.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::activity::Activity;
use crate::api::{BoxedReader, BoxedWriter};
use crate::outbound::{Encoder, Message, Outbox};
use crate::spdy;
use crate::websocket;

/// How long a client may take to close its end after ours is closed. Closing the socket with
/// unread bytes in it would make the kernel drop what the client has not yet received.
const LINGER: Duration = Duration::from_secs(30);

/// A connection's halves, and what was already read from it.
pub(crate) struct Connection {
    pub(crate) reader: BoxedReader,
    pub(crate) writer: BoxedWriter,
    pub(crate) buffered: BytesMut,
}

/// Why reading a connection stopped before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("read the connection")]
    Io(#[from] io::Error),
    #[error("SPDY client broke the protocol")]
    Spdy(#[from] spdy::FrameError),
    #[error("WebSocket client broke the protocol")]
    WebSocket(#[from] websocket::FrameError),
}

/// How one protocol reads a connection.
pub(crate) trait Wire: Send + 'static {
    /// Reads until the client ends the connection.
    fn read(
        &mut self,
        reader: &mut BoxedReader,
        buffer: BytesMut,
        activity: &Activity,
    ) -> impl Future<Output = Result<(), ReadError>> + Send;

    /// Cuts all streams.
    fn end(&self);
}

/// A running connection. Dropping it cuts the connection.
pub(crate) struct Session {
    outbox: Outbox,
    closed: CancellationToken,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("closed", &self.closed.is_cancelled())
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn start<W: Wire>(
        connection: Connection,
        idle_timeout: Duration,
        encoder: impl Encoder,
        wire: impl FnOnce(Outbox) -> W,
    ) -> Self {
        let (outbox, outgoing) = Outbox::new();
        let closed = CancellationToken::new();
        let activity = Arc::new(Activity::new());
        let writer = tokio::spawn({
            let (closed, activity) = (closed.clone(), activity.clone());
            let connection = connection.writer;
            async move {
                let late = async {
                    closed.cancelled().await;
                    sleep(LINGER).await;
                };
                tokio::select! {
                    result = outgoing.run(encoder, connection, activity) => {
                        if let Err(error) = result {
                            tracing::debug!(%error, "streaming connection can't be written");
                            closed.cancel();
                        }
                    }
                    // The client ended its way long ago and takes nothing more.
                    () = late => {}
                }
            }
        });
        let mut wire = wire(outbox.clone());
        let reader = tokio::spawn({
            let closed = closed.clone();
            let (mut reader, buffered) = (connection.reader, connection.buffered);
            async move {
                tokio::select! {
                    result = wire.read(&mut reader, buffered, &activity) => {
                        if let Err(error) = result {
                            tracing::debug!(error = crate::api::chain(&error), "streaming connection ended");
                        }
                    }
                    () = activity.idle_for(idle_timeout) => {
                        tracing::info!("streaming connection closed: idle for {idle_timeout:?}");
                    }
                    () = closed.cancelled() => {}
                }
                wire.end();
                closed.cancel();
            }
        });
        Self {
            outbox,
            closed,
            reader,
            writer,
        }
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Cancelled when the client is gone.
    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Ends the connection once everything queued is with the client.
    pub(crate) async fn close(mut self) {
        if self.outbox.send(Message::Close).await.is_err() {
            return;
        }
        tokio::select! {
            _ = &mut self.writer => {}
            // An unreachable or idle client ends the wait.
            () = self.closed.cancelled() => {
                if timeout(Duration::from_secs(1), &mut self.writer).await.is_err() {
                    return;
                }
            }
        }
        if timeout(LINGER, &mut self.reader).await.is_err() {
            tracing::debug!("streaming client did not close its connection");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
    }
}
