//! WebSocket connections: numbered channels in messages, or one tunnelled byte stream.

mod channels;
mod frame;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use sha1::{Digest as _, Sha1};
use tokio::io::AsyncReadExt;

use self::channels::Channels;
pub(crate) use self::frame::FrameError;
use self::frame::{BINARY, Decoder, Event, TEXT};
use crate::activity::Activity;
use crate::api::BoxedReader;
use crate::outbound::{Batch, Control, Encoder, Message, Outbox, StreamWriter};
use crate::pipe::{Pipe, StreamReader};
use crate::session::{Connection, ReadError, Session, Wire};

/// Bytes read from the connection at once.
const READ_SIZE: usize = 64 * 1024;
const NORMAL: u16 = 1000;
const PROTOCOL_ERROR: u16 = 1002;

/// How bytes are put in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    /// The channel's number as a byte, then the data; with `close_signals`, channel 255 says
    /// which channel the client closes.
    Binary { close_signals: bool },
    /// The channel's number as a digit, then the data in base64, as text.
    Base64,
    /// No channels: the messages' bytes are one stream.
    Tunnel,
}

/// One channel's ends.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) reader: StreamReader,
    pub(crate) writer: StreamWriter,
}

/// The value of `Sec-WebSocket-Accept` for a client's key (RFC 6455, 4.2.2).
pub(crate) fn accept(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

/// Serves `count` channels on a connection.
pub(crate) fn start(
    connection: Connection,
    idle_timeout: Duration,
    codec: Codec,
    count: u8,
) -> (Session, Vec<Channel>) {
    let pipes: Vec<Arc<Pipe>> = (0..count).map(|_| Pipe::new()).collect();
    let code = Arc::new(AtomicU16::new(NORMAL));
    let encoder = MessageEncoder {
        codec,
        code: code.clone(),
        closed: false,
    };
    let session = Session::start(connection, idle_timeout, encoder, |outbox| WebSocket {
        channels: Channels::new(codec, pipes.clone()),
        outbox,
        code,
    });
    let channels = (0..).zip(pipes).map(|(id, pipe)| Channel {
        reader: StreamReader::new(pipe.clone()),
        writer: StreamWriter::new(id, session.outbox(), pipe),
    });
    let channels = channels.collect();
    (session, channels)
}

struct WebSocket {
    channels: Channels,
    outbox: Outbox,
    code: Arc<AtomicU16>,
}

impl Wire for WebSocket {
    async fn read(
        &mut self,
        reader: &mut BoxedReader,
        buffer: BytesMut,
        activity: &Activity,
    ) -> Result<(), ReadError> {
        let result = self.read_messages(reader, buffer, activity).await;
        if matches!(result, Err(ReadError::WebSocket(_))) {
            self.code.store(PROTOCOL_ERROR, Ordering::Relaxed);
        }
        self.outbox.answer(Control::Hangup);
        result
    }

    fn end(&self) {
        self.channels.end();
    }
}

impl WebSocket {
    async fn read_messages(
        &mut self,
        reader: &mut BoxedReader,
        mut buffer: BytesMut,
        activity: &Activity,
    ) -> Result<(), ReadError> {
        let mut decoder = Decoder::default();
        loop {
            while let Some(event) = decoder.next(&mut buffer)? {
                match event {
                    Event::Part {
                        first,
                        text,
                        chunk,
                        last,
                    } => {
                        self.channels.part(first, text, chunk, last).await?;
                    }
                    Event::Ping(payload) => self.outbox.answer(Control::Pong(payload)),
                    Event::Pong => {}
                    Event::Close => return Ok(()),
                }
            }
            buffer.reserve(READ_SIZE);
            if reader.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            activity.touch();
        }
    }
}

/// Writes the server's messages, each as one frame.
#[derive(Debug)]
struct MessageEncoder {
    codec: Codec,
    code: Arc<AtomicU16>,
    closed: bool,
}

impl MessageEncoder {
    fn data(&self, channel: u32, chunk: Bytes, batch: &mut Batch) {
        // Channels are numbered by a byte from the start.
        let channel = u8::try_from(channel).unwrap_or(u8::MAX);
        match self.codec {
            Codec::Binary { .. } => {
                batch.put(frame::header(BINARY, chunk.len(), &[channel]));
                batch.put(chunk);
            }
            Codec::Base64 => {
                let text = STANDARD.encode(&chunk);
                batch.put(frame::header(
                    TEXT,
                    text.len(),
                    &[b'0'.wrapping_add(channel)],
                ));
                batch.put(text);
            }
            Codec::Tunnel => {
                batch.put(frame::header(BINARY, chunk.len(), &[]));
                batch.put(chunk);
            }
        }
    }

    fn close(&mut self, batch: &mut Batch) {
        if !self.closed {
            self.closed = true;
            batch.put(frame::close(self.code.load(Ordering::Relaxed)));
        }
    }
}

impl Encoder for MessageEncoder {
    fn message(&mut self, message: Message, batch: &mut Batch) {
        match message {
            Message::Data(channel, chunk) if !self.closed => self.data(channel, chunk, batch),
            Message::Close => self.close(batch),
            Message::Fin(_) if self.codec == Codec::Tunnel => self.close(batch),
            // The protocol has no words for these: a channel ends with its connection.
            Message::Data(..) | Message::Reply(_) | Message::Fin(_) | Message::Reset(..) => {}
        }
    }

    fn control(&mut self, control: Control, batch: &mut Batch) {
        match control {
            Control::Pong(payload) if !self.closed => {
                batch.put(frame::pong_header(payload.len()));
                batch.put(payload);
            }
            Control::Hangup => self.close(batch),
            Control::Pong(_) | Control::Ping(_) | Control::Reset(..) => {}
        }
    }
}

#[cfg(test)]
mod tests;
