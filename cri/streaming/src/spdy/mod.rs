//! SPDY/3.1, as far as Kubernetes' streaming uses it: streams that the client opens, each with
//! headers, over one connection.

mod dictionary;
mod frame;
mod headers;
mod table;

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use self::frame::{Decoder, Event, FrameEncoder};
pub(crate) use self::frame::{FrameError, reset};
pub(crate) use self::headers::Headers;
#[cfg(fuzzing)]
pub(crate) use self::headers::client::Deflater;
use self::table::{Lookup, Refusal, Table};
use crate::api::BoxedReader;
use crate::outbound::{Control, Outbox, StreamWriter};
use crate::pipe::StreamReader;
use crate::session::{Connection, ReadError, Session, Wire};

/// New streams that may wait for the session's owner; then the connection is not read on.
const NEW_STREAMS: usize = 8;
/// Bytes read from the connection at once.
const READ_SIZE: usize = 64 * 1024;

/// A stream the client opened. It must be replied to, or reset, by its number.
#[derive(Debug)]
pub(crate) struct NewStream {
    pub(crate) id: u32,
    pub(crate) headers: Headers,
    pub(crate) reader: StreamReader,
    pub(crate) writer: StreamWriter,
}

/// Serves SPDY on a connection; new streams come from the receiver, and are refused once it is
/// dropped.
pub(crate) fn start(
    connection: Connection,
    idle_timeout: Duration,
) -> (Session, mpsc::Receiver<NewStream>) {
    let table = Arc::new(Table::default());
    let (new_streams, receiver) = mpsc::channel(NEW_STREAMS);
    let encoder = FrameEncoder::new(table.clone());
    let session = Session::start(connection, idle_timeout, encoder, |outbox| Spdy {
        table,
        outbox,
        new_streams,
    });
    (session, receiver)
}

struct Spdy {
    table: Arc<Table>,
    outbox: Outbox,
    new_streams: mpsc::Sender<NewStream>,
}

impl Wire for Spdy {
    async fn read(
        &mut self,
        reader: &mut BoxedReader,
        mut buffer: BytesMut,
        activity: &crate::activity::Activity,
    ) -> Result<(), ReadError> {
        let mut decoder = Decoder::new();
        loop {
            while let Some(event) = self.next(&mut decoder, &mut buffer)? {
                self.handle(event).await;
            }
            buffer.reserve(READ_SIZE);
            if reader.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            activity.touch();
        }
    }

    fn end(&self) {
        self.table.end();
    }
}

impl Spdy {
    fn next(
        &self,
        decoder: &mut Decoder,
        buffer: &mut BytesMut,
    ) -> Result<Option<Event>, FrameError> {
        decoder.next(buffer).inspect_err(|_| self.table.fail())
    }

    async fn handle(&self, event: Event) {
        match event {
            Event::Open { id, fin, headers } => self.open(id, fin, headers).await,
            Event::Data { id, chunk, fin } => {
                match self.table.lookup(id) {
                    Lookup::Open(pipe) => pipe.push(chunk).await,
                    Lookup::RemoteEnded if !chunk.is_empty() => {
                        self.table.remove(id);
                        self.reset(id, reset::STREAM_ALREADY_CLOSED);
                    }
                    Lookup::RemoteEnded | Lookup::Past => {}
                    Lookup::Unknown => self.reset(id, reset::INVALID_STREAM),
                }
                if fin {
                    self.table.remote_end(id);
                }
            }
            Event::HeadersFin { id } => self.table.remote_end(id),
            Event::Reset { id } => {
                self.table.remove(id);
            }
            // Even numbers would answer pings of ours.
            Event::Ping { id } if id % 2 == 1 => self.outbox.answer(Control::Ping(id)),
            // A client that goes away closes its connection as well.
            Event::Ping { .. } | Event::GoAway | Event::Ignored => {}
        }
    }

    async fn open(&self, id: u32, fin: bool, headers: Headers) {
        let pipe = match self.table.open(id, fin) {
            Ok(pipe) => pipe,
            Err(Refusal::Reused) => return self.reset(id, reset::PROTOCOL_ERROR),
            Err(Refusal::Full) => return self.reset(id, reset::REFUSED_STREAM),
        };
        let Ok(place) = self.new_streams.reserve().await else {
            self.table.remove(id);
            return self.reset(id, reset::REFUSED_STREAM);
        };
        place.send(NewStream {
            id,
            headers,
            reader: StreamReader::new(pipe.clone()),
            writer: StreamWriter::new(id, &self.outbox, pipe),
        });
    }

    fn reset(&self, id: u32, status: u32) {
        self.outbox.answer(Control::Reset(id, status));
    }
}

#[cfg(test)]
mod tests;
