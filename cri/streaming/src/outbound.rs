//! The sending side: every stream queues messages for its connection's one writer task.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use crate::activity::Activity;
use crate::api::BoxedWriter;
use crate::pipe::Pipe;

/// Most bytes of one data message.
const CHUNK: usize = 32 * 1024;
/// Messages that may wait for the connection, over all its streams.
const QUEUE: usize = 16;
/// Answers (pings, resets) that may wait; more are dropped, as only a flood makes more.
const CONTROL_QUEUE: usize = 64;

/// What streams send, in order.
#[derive(Debug)]
pub(crate) enum Message {
    /// The stream is accepted.
    Reply(u32),
    Data(u32, Bytes),
    /// Nothing more comes on this stream.
    Fin(u32),
    /// The stream is given up, both ways.
    Reset(u32, u32),
    /// The connection ends after what was queued before.
    Close,
}

/// What the connection's reader answers, ahead of queued data.
#[derive(Debug)]
pub(crate) enum Control {
    Ping(u32),
    Pong(Bytes),
    Reset(u32, u32),
    /// The client said good-bye: answer it and end.
    Hangup,
}

/// How one protocol writes messages.
pub(crate) trait Encoder: Send + 'static {
    fn message(&mut self, message: Message, batch: &mut Batch);
    fn control(&mut self, control: Control, batch: &mut Batch);
}

/// Buffers that go out with as few system calls as possible.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    parts: VecDeque<Bytes>,
}

impl Batch {
    pub(crate) fn put(&mut self, part: impl Into<Bytes>) {
        let part = part.into();
        if !part.is_empty() {
            self.parts.push_back(part);
        }
    }
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| part)
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(part) = self.parts.front_mut() {
            if count < part.len() {
                part.advance(count);
                return;
            }
            count -= part.len();
            self.parts.pop_front();
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, part) in slices.iter_mut().zip(&self.parts) {
            *slice = IoSlice::new(part);
            filled += 1;
        }
        filled
    }
}

/// Where streams and the reader queue what is to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    messages: mpsc::Sender<Message>,
    controls: mpsc::Sender<Control>,
}

/// The writer task's end of an [`Outbox`].
#[derive(Debug)]
pub(crate) struct Outgoing {
    messages: mpsc::Receiver<Message>,
    controls: mpsc::Receiver<Control>,
}

/// The connection's writer is gone.
#[derive(Debug)]
pub(crate) struct Gone;

impl Outbox {
    pub(crate) fn new() -> (Self, Outgoing) {
        let (messages, message_end) = mpsc::channel(QUEUE);
        let (controls, control_end) = mpsc::channel(CONTROL_QUEUE);
        (
            Self { messages, controls },
            Outgoing {
                messages: message_end,
                controls: control_end,
            },
        )
    }

    pub(crate) async fn send(&self, message: Message) -> Result<(), Gone> {
        self.messages.send(message).await.map_err(|_| Gone)
    }

    /// Answers without waiting; dropped when the peer asks faster than it reads.
    pub(crate) fn answer(&self, control: Control) {
        if self.controls.try_send(control).is_err() {
            tracing::debug!("answer to a streaming client dropped");
        }
    }
}

impl Outgoing {
    /// Writes until a `Close` is written or the connection fails, then shuts the connection down.
    pub(crate) async fn run(
        mut self,
        mut encoder: impl Encoder,
        mut connection: BoxedWriter,
        activity: Arc<Activity>,
    ) -> io::Result<()> {
        let mut batch = Batch::default();
        let mut messages = Vec::with_capacity(QUEUE);
        let mut closing = false;
        while !closing {
            tokio::select! {
                biased;
                Some(control) = self.controls.recv() => {
                    closing = matches!(control, Control::Hangup);
                    encoder.control(control, &mut batch);
                }
                count = self.messages.recv_many(&mut messages, QUEUE) => {
                    closing = count == 0;
                    for message in messages.drain(..) {
                        closing |= matches!(message, Message::Close);
                        encoder.message(message, &mut batch);
                        if closing {
                            break;
                        }
                    }
                }
            }
            connection.write_all_buf(&mut batch).await?;
            connection.flush().await?;
            activity.touch();
        }
        connection.shutdown().await
    }
}

/// What goes to the client on one stream. Shutting down or dropping it ends the stream's way to
/// the client.
#[derive(Debug)]
pub(crate) struct StreamWriter {
    id: u32,
    outbox: PollSender<Message>,
    pipe: Arc<Pipe>,
    finished: bool,
}

impl StreamWriter {
    pub(crate) fn new(id: u32, outbox: &Outbox, pipe: Arc<Pipe>) -> Self {
        Self {
            id,
            outbox: PollSender::new(outbox.messages.clone()),
            pipe,
            finished: false,
        }
    }

    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        message: impl FnOnce(u32) -> Message,
    ) -> Poll<io::Result<()>> {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        if self.finished || self.pipe.is_reset() {
            return Poll::Ready(Err(broken()));
        }
        std::task::ready!(self.outbox.poll_reserve(context)).map_err(|_| broken())?;
        let message = message(self.id);
        Poll::Ready(self.outbox.send_item(message).map_err(|_| broken()))
    }
}

impl AsyncWrite for StreamWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let chunk = &buffer[..buffer.len().min(CHUNK)];
        self.poll_send(context, |id| {
            Message::Data(id, Bytes::copy_from_slice(chunk))
        })
        .map_ok(|()| chunk.len())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.finished {
            return Poll::Ready(Ok(()));
        }
        std::task::ready!(self.poll_send(context, Message::Fin))?;
        self.finished = true;
        Poll::Ready(Ok(()))
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        if self.finished || self.pipe.is_reset() {
            return;
        }
        // A full queue must not lose the end of the stream; dropping can't wait, a task can.
        if let (Some(outbox), Ok(runtime)) = (
            self.outbox.get_ref().cloned(),
            tokio::runtime::Handle::try_current(),
        ) {
            let id = self.id;
            runtime.spawn(async move { outbox.send(Message::Fin(id)).await });
        }
    }
}
