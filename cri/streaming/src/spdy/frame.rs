//! SPDY/3.1 frames (SPDY protocol draft 3.1, section 2): an incremental decoder of what clients
//! send, and the encoder of what the server answers.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::headers::{HeaderError, HeaderReader, HeaderWriter, Headers};
use super::table::Table;
use crate::outbound::{Batch, Control, Encoder, Message};

const VERSION: u16 = 3;
const HEADER: usize = 8;
/// Most bytes of a control frame. The biggest a client has reason to send is some hundred bytes.
const MAX_CONTROL: usize = 64 * 1024;
const FLAG_FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// The setting of a stream's first receive window.
const INITIAL_WINDOW_SIZE: u32 = 7;
/// The largest window.
const MAX_WINDOW: u32 = 0x7fff_ffff;
/// The window a connection starts with.
const DEFAULT_WINDOW: u32 = 64 * 1024;

/// Reasons for a RST_STREAM.
pub(crate) mod reset {
    pub(crate) const PROTOCOL_ERROR: u32 = 1;
    pub(crate) const INVALID_STREAM: u32 = 2;
    pub(crate) const REFUSED_STREAM: u32 = 3;
    pub(crate) const CANCEL: u32 = 5;
    pub(crate) const STREAM_ALREADY_CLOSED: u32 = 9;
}

/// What a client sent that ends the connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("SPDY version {0} instead of {VERSION}")]
    Version(u16),
    #[error("control frame of {0} bytes")]
    TooLarge(usize),
    #[error("control frame of type {kind} with {length} bytes")]
    Length { kind: u16, length: usize },
    #[error("frame of type {0} for stream 0")]
    ZeroStream(u16),
    #[error("stream {0} is not a client's")]
    NotAClients(u32),
    #[error("header block of stream {id}")]
    Headers {
        id: u32,
        #[source]
        source: HeaderError,
    },
}

/// What a client's frame says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Open {
        id: u32,
        fin: bool,
        headers: Headers,
    },
    /// A part of a data frame; `fin` with the last part.
    Data {
        id: u32,
        chunk: Bytes,
        fin: bool,
    },
    Reset {
        id: u32,
    },
    /// Later headers; only their FIN means something here.
    HeadersFin {
        id: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    /// Settings, windows and the like: read and without consequence.
    Ignored,
}

#[derive(Debug)]
struct OpenData {
    id: u32,
    remaining: usize,
    fin: bool,
}

/// Makes events of bytes, keeping header compression and half-read data frames.
#[derive(Debug)]
pub(crate) struct Decoder {
    headers: HeaderReader,
    data: Option<OpenData>,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self {
            headers: HeaderReader::new(),
            data: None,
        }
    }

    /// Takes the next event off the buffer; `None` when it needs more bytes.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>, FrameError> {
        if self.data.is_some() {
            return Ok(self.data_part(buffer));
        }
        let Some((header, _)) = buffer.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [a, b, c, d, flags, x, y, z] = *header;
        let word = u32::from_be_bytes([a, b, c, d]);
        let length = usize::from(x) << 16 | usize::from(y) << 8 | usize::from(z);
        if a & 0x80 == 0 {
            if word == 0 {
                return Err(FrameError::ZeroStream(0));
            }
            buffer.advance(HEADER);
            self.data = Some(OpenData {
                id: word,
                remaining: length,
                fin: flags & FLAG_FIN != 0,
            });
            return Ok(self.data_part(buffer));
        }
        let version = u16::from_be_bytes([a & 0x7f, b]);
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if length > MAX_CONTROL {
            return Err(FrameError::TooLarge(length));
        }
        if buffer.len() < HEADER + length {
            return Ok(None);
        }
        buffer.advance(HEADER);
        let payload = buffer.split_to(length);
        self.control(u16::from_be_bytes([c, d]), flags, &payload)
            .map(Some)
    }

    fn data_part(&mut self, buffer: &mut BytesMut) -> Option<Event> {
        let data = self.data.as_mut()?;
        if data.remaining > 0 && buffer.is_empty() {
            return None;
        }
        let chunk = buffer.split_to(data.remaining.min(buffer.len())).freeze();
        data.remaining -= chunk.len();
        let last = data.remaining == 0;
        let event = Event::Data {
            id: data.id,
            chunk,
            fin: last && data.fin,
        };
        if last {
            self.data = None;
        }
        Some(event)
    }

    fn control(&mut self, kind: u16, flags: u8, payload: &[u8]) -> Result<Event, FrameError> {
        let fixed = match kind {
            SYN_STREAM => 10,
            SYN_REPLY | HEADERS | SETTINGS | PING => 4,
            RST_STREAM | GOAWAY | WINDOW_UPDATE => 8,
            // Unknown frames are ignored, as the protocol asks.
            _ => return Ok(Event::Ignored),
        };
        let (mut fields, block) = payload.split_at_checked(fixed).ok_or(FrameError::Length {
            kind,
            length: payload.len(),
        })?;
        let first = fields.get_u32();
        let id = first & 0x7fff_ffff;
        let fin = flags & FLAG_FIN != 0;
        match kind {
            SYN_STREAM => {
                let headers = self.block(id, block)?;
                if id == 0 {
                    return Err(FrameError::ZeroStream(kind));
                }
                if id % 2 == 0 {
                    return Err(FrameError::NotAClients(id));
                }
                Ok(Event::Open { id, fin, headers })
            }
            SYN_REPLY | HEADERS => {
                self.block(id, block)?;
                Ok(if fin {
                    Event::HeadersFin { id }
                } else {
                    Event::Ignored
                })
            }
            RST_STREAM if id == 0 => Err(FrameError::ZeroStream(kind)),
            RST_STREAM => Ok(Event::Reset { id }),
            PING => Ok(Event::Ping { id: first }),
            GOAWAY => Ok(Event::GoAway),
            _ => Ok(Event::Ignored),
        }
    }

    fn block(&mut self, id: u32, block: &[u8]) -> Result<Headers, FrameError> {
        self.headers
            .read(block)
            .map_err(|source| FrameError::Headers { id, source })
    }
}

/// Writes the server's frames.
///
/// Windows are opened as wide as they go, once: the usual clients neither keep nor read windows,
/// and a window update per chunk would only fill their queues. TCP holds back whoever sends more
/// than is taken.
#[derive(Debug)]
pub(crate) struct FrameEncoder {
    headers: HeaderWriter,
    table: Arc<Table>,
    greeted: bool,
}

impl FrameEncoder {
    pub(crate) fn new(table: Arc<Table>) -> Self {
        Self {
            headers: HeaderWriter::default(),
            table,
            greeted: false,
        }
    }

    fn greet(&mut self, batch: &mut Batch) {
        if self.greeted {
            return;
        }
        self.greeted = true;
        batch.put(control(SETTINGS, &[1, INITIAL_WINDOW_SIZE, MAX_WINDOW]));
        batch.put(control(WINDOW_UPDATE, &[0, MAX_WINDOW - DEFAULT_WINDOW]));
    }
}

impl Encoder for FrameEncoder {
    fn message(&mut self, message: Message, batch: &mut Batch) {
        self.greet(batch);
        match message {
            Message::Reply(id) => {
                let mut payload = BytesMut::with_capacity(32);
                payload.put_u32(id);
                self.headers.write_empty(&mut payload);
                let mut frame = control_header(SYN_REPLY, payload.len());
                frame.unsplit(payload);
                batch.put(frame);
            }
            Message::Data(id, chunk) if self.table.may_send(id) => {
                batch.put(data_header(id, 0, chunk.len()));
                batch.put(chunk);
            }
            Message::Fin(id) if self.table.may_send(id) => {
                batch.put(data_header(id, FLAG_FIN, 0));
                self.table.local_end(id);
            }
            Message::Reset(id, status) if self.table.remove(id) => {
                batch.put(control(RST_STREAM, &[id, status]));
            }
            Message::Data(..) | Message::Fin(_) | Message::Reset(..) => {}
            Message::Close => batch.put(control(
                GOAWAY,
                &[self.table.last_id(), self.table.status()],
            )),
        }
    }

    fn control(&mut self, answer: Control, batch: &mut Batch) {
        match answer {
            Control::Ping(id) => batch.put(control(PING, &[id])),
            Control::Reset(id, status) => batch.put(control(RST_STREAM, &[id, status])),
            Control::Pong(_) | Control::Hangup => {}
        }
    }
}

fn control_header(kind: u16, length: usize) -> BytesMut {
    let mut frame = BytesMut::with_capacity(HEADER + length);
    frame.put_u16(0x8000 | VERSION);
    frame.put_u16(kind);
    put_length(&mut frame, 0, length);
    frame
}

fn control(kind: u16, words: &[u32]) -> BytesMut {
    let mut frame = control_header(kind, words.len() * 4);
    for word in words {
        frame.put_u32(*word);
    }
    frame
}

fn data_header(id: u32, flags: u8, length: usize) -> BytesMut {
    let mut header = BytesMut::with_capacity(HEADER);
    header.put_u32(id);
    put_length(&mut header, flags, length);
    header
}

fn put_length(frame: &mut BytesMut, flags: u8, length: usize) {
    frame.put_u8(flags);
    frame.put_uint(length as u64, 3);
}
