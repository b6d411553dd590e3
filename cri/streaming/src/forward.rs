//! Port-forward: pairs the client's streams and carries each pair's connection.

use std::collections::HashMap;
use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::{fmt, io};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::join_all;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::api::{StreamError, Streams, chain};
use crate::negotiate::{Agreed, Transport};
use crate::outbound::{Message, Outbox, StreamWriter};
use crate::pipe::StreamReader;
use crate::remote::{Limits, gone};
use crate::session::Connection;
use crate::spdy::{self, NewStream, reset};
use crate::websocket::{self, Codec};

/// What is forwarded to.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) pod_id: String,
    pub(crate) streams: Arc<dyn Streams>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("pod_id", &self.pod_id)
            .finish_non_exhaustive()
    }
}

/// Serves one port-forward session on an upgraded connection.
pub(crate) async fn serve(
    connection: Connection,
    agreed: Agreed<()>,
    target: Target,
    ports: Vec<u16>,
    limits: Limits,
) {
    match agreed.transport {
        Transport::Spdy => serve_spdy(connection, &target, limits).await,
        Transport::WebSocket(Codec::Tunnel) => {
            let (session, mut channels) =
                websocket::start(connection, limits.idle, Codec::Tunnel, 1);
            let Some(tunnel) = channels.pop() else { return };
            let connection = Connection {
                reader: Box::new(tunnel.reader),
                writer: Box::new(tunnel.writer),
                buffered: bytes::BytesMut::new(),
            };
            serve_spdy(connection, &target, limits).await;
            session.close().await;
        }
        Transport::WebSocket(codec) => {
            serve_channels(connection, codec, &target, &ports, limits).await;
        }
    }
}

/// Which streams belong together: by the client's word, or, for clients that say nothing, by
/// the order in which they open error and data stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Named(String),
    Ordered(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data,
    Error,
}

/// A pair of which one stream is still to come.
#[derive(Debug)]
struct Half {
    kind: Kind,
    stream: NewStream,
    deadline: Instant,
}

async fn serve_spdy(connection: Connection, target: &Target, limits: Limits) {
    let (session, mut incoming) = spdy::start(connection, limits.idle);
    let mut halves: HashMap<Key, Half> = HashMap::new();
    let mut forwards = JoinSet::new();
    loop {
        let due = halves.values().map(|half| half.deadline).min();
        tokio::select! {
            stream = incoming.recv() => {
                let Some(stream) = stream else { break };
                if let Some((port, data, error)) =
                    pair(stream, &mut halves, session.outbox(), limits).await
                {
                    let (target, outbox) = (target.clone(), session.outbox().clone());
                    forwards.spawn(carry(target, port, data, error, outbox));
                }
            }
            () = async { match due {
                Some(due) => sleep_until(due).await,
                None => pending().await,
            } } => expire(&mut halves, session.outbox()).await,
            Some(_) = forwards.join_next() => {}
            () = session.closed().cancelled() => break,
        }
    }
    // The client is gone: what it sent last may still be taken.
    tokio::select! {
        () = async { while forwards.join_next().await.is_some() {} } => {}
        () = gone(&session) => {}
    }
    drop((forwards, halves));
    session.close().await;
}

/// Accepts a stream; gives port, data and error stream once both are there.
async fn pair(
    stream: NewStream,
    halves: &mut HashMap<Key, Half>,
    outbox: &Outbox,
    limits: Limits,
) -> Option<(u16, NewStream, NewStream)> {
    let Some((kind, port, key)) = describe(&stream) else {
        tracing::debug!(id = stream.id, "port-forward stream without port or type");
        outbox
            .send(Message::Reset(stream.id, reset::CANCEL))
            .await
            .ok();
        return None;
    };
    match halves.remove(&key) {
        None => {
            outbox.send(Message::Reply(stream.id)).await.ok()?;
            let deadline = Instant::now() + limits.creation;
            halves.insert(
                key,
                Half {
                    kind,
                    stream,
                    deadline,
                },
            );
            None
        }
        Some(half) if half.kind == kind => {
            outbox
                .send(Message::Reset(stream.id, reset::CANCEL))
                .await
                .ok();
            halves.insert(key, half);
            None
        }
        Some(half) => {
            outbox.send(Message::Reply(stream.id)).await.ok()?;
            match kind {
                Kind::Data => Some((port, stream, half.stream)),
                Kind::Error => Some((port, half.stream, stream)),
            }
        }
    }
}

fn describe(stream: &NewStream) -> Option<(Kind, u16, Key)> {
    let port = stream
        .headers
        .get("port")?
        .parse()
        .ok()
        .filter(|port| *port != 0)?;
    let (kind, first) = match stream.headers.get("streamtype")? {
        "data" => (Kind::Data, stream.id.saturating_sub(2)),
        "error" => (Kind::Error, stream.id),
        _ => return None,
    };
    let key = match stream.headers.get("requestid") {
        Some(name) if !name.is_empty() => Key::Named(name.to_owned()),
        _ => Key::Ordered(first),
    };
    Some((kind, port, key))
}

async fn expire(halves: &mut HashMap<Key, Half>, outbox: &Outbox) {
    let now = Instant::now();
    let expired: Vec<_> = halves.extract_if(|_, half| half.deadline <= now).collect();
    for (_, half) in expired {
        let id = half.stream.id;
        if half.kind == Kind::Error {
            let text = Bytes::from_static(b"timed out waiting for the data stream");
            outbox.send(Message::Data(id, text)).await.ok();
            outbox.send(Message::Fin(id)).await.ok();
        }
        outbox.send(Message::Reset(id, reset::CANCEL)).await.ok();
    }
}

/// Both ends of a forwarded connection.
#[derive(Debug)]
struct Both {
    reader: StreamReader,
    writer: StreamWriter,
}

impl AsyncRead for Both {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(context, buffer)
    }
}

impl AsyncWrite for Both {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(context)
    }
}

async fn carry(target: Target, port: u16, data: NewStream, error: NewStream, outbox: Outbox) {
    let (data_id, error_id) = (data.id, error.id);
    // The client sends nothing on the error stream.
    drop(error.reader);
    let both = Both {
        reader: data.reader,
        writer: data.writer,
    };
    let messages = match forward(&target, port, both).await {
        Ok(()) => vec![Message::Fin(data_id), Message::Fin(error_id)],
        Err(text) => vec![
            Message::Data(error_id, text.into()),
            Message::Fin(error_id),
            Message::Reset(data_id, reset::CANCEL),
        ],
    };
    for message in messages {
        if outbox.send(message).await.is_err() {
            return;
        }
    }
}

async fn forward(target: &Target, port: u16, both: Both) -> Result<(), String> {
    let Target { pod_id, streams } = target;
    let task = AssertUnwindSafe(streams.port_forward(pod_id, port, Box::new(both)));
    let failure = match task.catch_unwind().await {
        Ok(Ok(())) => return Ok(()),
        // A client that cuts its connection is no failure of the forward.
        Ok(Err(StreamError::Relay { source, .. })) if is_cut(&source) => return Ok(()),
        Ok(Err(error)) => chain(&error),
        Err(_) => "the runtime failed".to_owned(),
    };
    tracing::info!(pod = pod_id, port, failure, "port-forward failed");
    Err(format!("forward port {port} to pod {pod_id}: {failure}"))
}

fn is_cut(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

/// The protocol without SPDY: two channels for each port, both starting with the port's number.
async fn serve_channels(
    connection: Connection,
    codec: Codec,
    target: &Target,
    ports: &[u16],
    limits: Limits,
) {
    let Ok(count) = u8::try_from(ports.len() * 2) else {
        return;
    };
    let (session, channels) = websocket::start(connection, limits.idle, codec, count);
    let mut channels = channels.into_iter();
    let mut forwards = Vec::new();
    for port in ports {
        let (Some(data), Some(error)) = (channels.next(), channels.next()) else {
            break;
        };
        forwards.push((*port, data, error));
    }
    let outbox = session.outbox();
    let work = forwards.into_iter().zip((0_u32..).step_by(2));
    let work = join_all(work.map(|((port, data, error), id)| async move {
        let number = Bytes::copy_from_slice(&port.to_le_bytes());
        for channel in [id, id + 1] {
            outbox
                .send(Message::Data(channel, number.clone()))
                .await
                .ok()?;
        }
        // Nothing comes on the error channel, and nothing ends it but the connection.
        let _error = error.writer;
        let both = Both {
            reader: data.reader,
            writer: data.writer,
        };
        let text = forward(target, port, both).await.err()?;
        outbox.send(Message::Data(id + 1, text.into())).await.ok()
    }));
    tokio::select! {
        _ = work => {}
        () = gone(&session) => {}
    }
    session.close().await;
}
