//! What fuzzers call: whole sessions against a client that may send anything.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::timeout;

use crate::pipe::StreamReader;
use crate::session::{Connection, Session};
use crate::spdy::{self, Deflater};
use crate::websocket::{self, Codec};

/// A session that has everything the client sent must end within this.
const DEADLINE: Duration = Duration::from_secs(10);
const NEVER_IDLE: Duration = Duration::from_secs(3600);

fn connection() -> (Connection, DuplexStream) {
    let (near, far) = tokio::io::duplex(64 << 10);
    let (reader, writer) = tokio::io::split(near);
    let connection = Connection {
        reader: Box::new(reader),
        writer: Box::new(writer),
        buffered: BytesMut::new(),
    };
    (connection, far)
}

/// Sends what the client has and reads what it gets, until the session has ended.
async fn talk(far: DuplexStream, sent: Vec<u8>, session: &Session) {
    let (mut reader, mut writer) = tokio::io::split(far);
    let send = async {
        // The session may have hung up.
        drop(writer.write_all(&sent).await);
        drop(writer.shutdown().await);
    };
    let read = async {
        let mut answers = Vec::new();
        drop(reader.read_to_end(&mut answers).await);
    };
    let ended = async { tokio::join!(send, session.closed().cancelled()) };
    tokio::select! {
        ended = timeout(DEADLINE, ended) => assert!(ended.is_ok(), "the session hangs"),
        () = async { read.await; std::future::pending().await } => {}
    }
}

async fn drain(mut reader: StreamReader) {
    let mut bytes = vec![0; 4096];
    while reader.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
}

/// A SPDY client's bytes. With an odd first byte they are a list of frames whose header blocks are
/// still to be compressed: 1 byte of frame type, 1 of flags, 1 of length, the payload.
pub async fn spdy(data: &[u8]) {
    let sent = match data.split_first() {
        Some((mode, rest)) if mode % 2 == 1 => frames(rest),
        Some((_, rest)) => rest.to_vec(),
        None => return,
    };
    let (connection, far) = connection();
    let (session, mut streams) = spdy::start(connection, NEVER_IDLE);
    let owner = tokio::spawn(async move {
        while let Some(stream) = streams.recv().await {
            tokio::spawn(drain(stream.reader));
        }
    });
    talk(far, sent, &session).await;
    owner.abort();
}

fn frames(mut data: &[u8]) -> Vec<u8> {
    const SYN_STREAM: u8 = 1;
    const HEADERS: u8 = 8;
    let mut deflate = Deflater::new();
    let mut sent = Vec::new();
    while let [kind, flags, length, rest @ ..] = data {
        let (payload, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        data = rest;
        // The part of the payload in front of the header block.
        let plain = match *kind {
            SYN_STREAM => 10,
            HEADERS => 4,
            _ => payload.len(),
        };
        let (plain, block) = payload.split_at(payload.len().min(plain));
        let mut payload = plain.to_vec();
        if !block.is_empty() {
            payload.extend(deflate.raw(block));
        }
        let length = u32::try_from(payload.len()).unwrap_or_default();
        if *kind == 0 {
            sent.extend([0, 0, 0, *flags >> 2]);
            sent.push(*flags & 1);
        } else {
            sent.extend([0x80, 3, 0, *kind, *flags]);
        }
        sent.extend(&length.to_be_bytes()[1..]);
        sent.extend(payload);
    }
    sent
}

/// A WebSocket client's bytes after the handshake; the first byte chooses the subprotocol.
pub async fn websocket(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else {
        return;
    };
    let codec = match mode % 4 {
        0 => Codec::Binary {
            close_signals: true,
        },
        1 => Codec::Binary {
            close_signals: false,
        },
        2 => Codec::Base64,
        _ => Codec::Tunnel,
    };
    let count = if codec == Codec::Tunnel { 1 } else { 5 };
    let (connection, far) = connection();
    let (session, channels) = websocket::start(connection, NEVER_IDLE, codec, count);
    for channel in channels {
        tokio::spawn(drain(channel.reader));
    }
    talk(far, rest.to_vec(), &session).await;
}
