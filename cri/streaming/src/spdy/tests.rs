//! A SPDY session against a client made of raw frames, well-behaved and hostile.

use bytes::{Buf, BufMut};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::time::timeout;

use super::headers::client::Deflater;
use super::*;
use crate::outbound::Message;

struct Client {
    connection: DuplexStream,
    deflate: Deflater,
    headers: super::headers::HeaderReader,
}

/// A frame the server sent.
#[derive(Debug, PartialEq, Eq)]
enum Frame {
    Control { kind: u16, words: Vec<u32> },
    Reply(u32),
    Data { id: u32, fin: bool, bytes: Vec<u8> },
}

const SYN_STREAM: u16 = 1;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;

fn session() -> (Session, mpsc::Receiver<NewStream>, Client) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (reader, writer) = tokio::io::split(near);
    let connection = Connection {
        reader: Box::new(reader),
        writer: Box::new(writer),
        buffered: BytesMut::new(),
    };
    let (session, streams) = start(connection, Duration::from_secs(60));
    let headers = super::headers::HeaderReader::new();
    (
        session,
        streams,
        Client {
            connection: far,
            deflate: Deflater::new(),
            headers,
        },
    )
}

fn control(kind: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80, 3];
    frame.put_u16(kind);
    frame.put_u8(flags);
    frame.put_uint(payload.len() as u64, 3);
    frame.put_slice(payload);
    frame
}

fn data(id: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = id.to_be_bytes().to_vec();
    frame.put_u8(flags);
    frame.put_uint(payload.len() as u64, 3);
    frame.put_slice(payload);
    frame
}

impl Client {
    async fn send(&mut self, bytes: &[u8]) {
        self.connection.write_all(bytes).await.unwrap();
    }

    async fn open(&mut self, id: u32, kind: &str) {
        let mut payload = id.to_be_bytes().to_vec();
        payload.extend([0; 6]);
        payload.extend(self.deflate.headers(&[("streamtype", kind)]));
        self.send(&control(SYN_STREAM, 0, &payload)).await;
    }

    async fn frame(&mut self) -> Frame {
        let mut header = [0; 8];
        self.connection.read_exact(&mut header).await.unwrap();
        let length = u32::from_be_bytes(header[4..].try_into().unwrap()) & 0x00ff_ffff;
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.connection.read_exact(&mut payload).await.unwrap();
        let mut rest = &payload[..];
        if header[0] & 0x80 == 0 {
            let id = u32::from_be_bytes(header[..4].try_into().unwrap());
            return Frame::Data {
                id,
                fin: header[4] & 1 == 1,
                bytes: payload,
            };
        }
        let kind = u16::from_be_bytes([header[2], header[3]]);
        if kind == 2 {
            let id = rest.get_u32();
            assert_eq!(self.headers.read(rest).unwrap(), Headers::default());
            return Frame::Reply(id);
        }
        let mut words = Vec::new();
        while rest.remaining() >= 4 {
            words.push(rest.get_u32());
        }
        Frame::Control { kind, words }
    }

    /// The next frame that is no setting or window.
    async fn next(&mut self) -> Frame {
        loop {
            match timeout(Duration::from_secs(5), self.frame()).await.unwrap() {
                Frame::Control { kind: 4 | 9, .. } => {}
                frame => return frame,
            }
        }
    }
}

fn rst(id: u32, status: u32) -> Frame {
    Frame::Control {
        kind: RST_STREAM,
        words: vec![id, status],
    }
}

#[tokio::test]
async fn streams_carry_data_both_ways_with_their_ends() {
    let (session, mut streams, mut client) = session();
    let mut held = Vec::new();
    for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout")] {
        client.open(id, kind).await;
        let mut stream = streams.recv().await.unwrap();
        assert_eq!(
            (stream.id, stream.headers.get("streamtype")),
            (id, Some(kind))
        );
        session.outbox().send(Message::Reply(id)).await.unwrap();
        assert_eq!(client.next().await, Frame::Reply(id));
        if kind == "stdin" {
            client.send(&data(3, 0, b"some ")).await;
            client.send(&data(3, 1, b"input")).await;
            let mut text = String::new();
            stream.reader.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "some input");
        }
        if kind == "stdout" {
            stream.writer.write_all(b"output").await.unwrap();
            stream.writer.shutdown().await.unwrap();
        }
        held.push(stream);
    }
    let bytes = b"output".to_vec();
    // Dropped writers end their streams as well.
    drop(held);
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(client.next().await);
    }
    let end = |id| Frame::Data {
        id,
        fin: true,
        bytes: vec![],
    };
    for frame in [
        Frame::Data {
            id: 5,
            fin: false,
            bytes,
        },
        end(1),
        end(3),
        end(5),
    ] {
        assert!(seen.contains(&frame), "{seen:?}");
    }
    let closing = tokio::spawn(session.close());
    let goaway = Frame::Control {
        kind: GOAWAY,
        words: vec![5, 0],
    };
    assert_eq!(client.next().await, goaway);
    drop(client);
    timeout(Duration::from_secs(5), closing)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn pings_of_the_client_are_echoed() {
    let (_session, _streams, mut client) = session();
    client.send(&control(PING, 0, &7_u32.to_be_bytes())).await;
    assert_eq!(
        client.next().await,
        Frame::Control {
            kind: PING,
            words: vec![7]
        }
    );
}

#[tokio::test]
async fn wrong_stream_numbers_reset_that_stream_only() {
    let (session, mut streams, mut client) = session();
    client.open(5, "stdin").await;
    let mut stream = streams.recv().await.unwrap();
    client.send(&data(9, 0, b"never opened")).await;
    assert_eq!(client.next().await, rst(9, reset::INVALID_STREAM));
    client.open(3, "stdout").await;
    assert_eq!(client.next().await, rst(3, reset::PROTOCOL_ERROR));
    client.send(&data(3, 0, b"ignored: it is past")).await;
    client.send(&data(5, 1, b"kept")).await;
    client.send(&data(5, 0, b"after the end")).await;
    assert_eq!(client.next().await, rst(5, reset::STREAM_ALREADY_CLOSED));
    let mut text = String::new();
    stream.reader.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "kept");
    assert!(!session.closed().is_cancelled());
}

#[tokio::test]
async fn a_reset_fails_both_ways() {
    let (_session, mut streams, mut client) = session();
    client.open(1, "data").await;
    let mut stream = streams.recv().await.unwrap();
    let mut payload = 1_u32.to_be_bytes().to_vec();
    payload.extend(reset::CANCEL.to_be_bytes());
    client.send(&control(RST_STREAM, 0, &payload)).await;
    let mut byte = [0];
    let read = stream.reader.read(&mut byte).await.unwrap_err();
    assert_eq!(read.kind(), std::io::ErrorKind::ConnectionReset);
    let write = stream.writer.write(b"x").await.unwrap_err();
    assert_eq!(write.kind(), std::io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn streams_are_refused_without_an_owner_and_beyond_the_bound() {
    let (_session, mut streams, mut client) = session();
    let mut held = Vec::new();
    for id in (1..).step_by(2).take(1000) {
        client.open(id, "data").await;
        held.push(streams.recv().await.unwrap());
    }
    client.open(2001, "data").await;
    assert_eq!(client.next().await, rst(2001, reset::REFUSED_STREAM));
    drop((held, streams));
    let (_session, streams, mut client) = session();
    drop(streams);
    client.open(1, "data").await;
    assert_eq!(client.next().await, rst(1, reset::REFUSED_STREAM));
}

#[tokio::test]
async fn ended_streams_are_forgotten() {
    let table = Table::default();
    for id in (1..).step_by(2).take(5000) {
        table.open(id, false).unwrap();
        table.local_end(id);
        table.remote_end(id);
    }
    assert_eq!(table.len(), 0);
    assert_eq!(table.open(9997, false).unwrap_err(), Refusal::Reused);
}

#[tokio::test]
async fn hostile_bytes_end_the_connection_with_a_goaway() {
    let bomb = {
        let mut payload = 1_u32.to_be_bytes().to_vec();
        payload.extend([0; 6]);
        payload.extend(Deflater::new().raw(&vec![0; 8 << 20]));
        control(SYN_STREAM, 0, &payload)
    };
    let garbled = {
        let mut payload = 1_u32.to_be_bytes().to_vec();
        payload.extend([0; 6]);
        payload.extend([0xff; 32]);
        control(SYN_STREAM, 0, &payload)
    };
    let mut oversized = control(SYN_STREAM, 0, &[]);
    oversized[5..8].copy_from_slice(&[0xff, 0xff, 0xff]);
    let even = {
        let mut payload = 2_u32.to_be_bytes().to_vec();
        payload.extend([0; 6]);
        payload.extend(Deflater::new().headers(&[]));
        control(SYN_STREAM, 0, &payload)
    };
    let http = b"GET / HTTP/1.1\r\n\r\n".to_vec();
    let version = vec![0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1];
    for (name, bytes) in [
        ("bomb", bomb),
        ("garbled", garbled),
        ("oversized", oversized),
        ("even", even),
        ("version", version),
        ("stream 0", data(0, 0, b"x")),
        ("short", control(SYN_STREAM, 0, &[0, 0, 0, 1])),
        ("reset of 0", control(RST_STREAM, 0, &[0; 8])),
    ] {
        let (session, mut streams, mut client) = session();
        client.send(&bytes).await;
        let ended = timeout(Duration::from_secs(5), session.closed().cancelled()).await;
        assert!(ended.is_ok(), "{name} did not end the session");
        assert!(streams.recv().await.is_none());
        let closing = tokio::spawn(session.close());
        let Frame::Control {
            kind: GOAWAY,
            words,
        } = client.next().await
        else {
            panic!("{name} got no GOAWAY")
        };
        assert_eq!(words[1], 1, "{name}");
        drop(client);
        timeout(Duration::from_secs(5), closing)
            .await
            .unwrap()
            .unwrap();
    }
    // Text reads as a data frame of an unopened stream: answered, and not waited for in memory.
    let (_session, _streams, mut client) = session();
    client.send(&http).await;
    assert!(matches!(
        client.next().await,
        Frame::Control {
            kind: RST_STREAM,
            ..
        }
    ));
}

#[tokio::test]
async fn random_bytes_never_panic_the_decoder() {
    use rand::{RngCore, SeedableRng};
    for seed in 0..2000 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let mut bytes = vec![0; 256];
        random.fill_bytes(&mut bytes);
        // Let most get past the version.
        bytes[..4].copy_from_slice(&[0x80, 3, 0, u8::try_from(seed % 12).unwrap()]);
        bytes[5..8].copy_from_slice(&[0, 0, u8::try_from(seed % 100).unwrap()]);
        let mut buffer = BytesMut::from(&bytes[..]);
        let mut decoder = Decoder::new();
        for _ in 0..100 {
            match decoder.next(&mut buffer) {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    let (session, _streams, _client) = session();
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert!(!session.closed().is_cancelled());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(session.closed().is_cancelled());
}

#[tokio::test]
async fn a_stream_nobody_reads_holds_its_connection_but_not_memory() {
    let (_session, mut streams, mut client) = session();
    client.open(1, "stdin").await;
    let stream = streams.recv().await.unwrap();
    let flood = async {
        loop {
            client.send(&data(1, 0, &[0; 65_536])).await;
        }
    };
    // The pipes on the way fill up, then the client waits.
    assert!(timeout(Duration::from_millis(300), flood).await.is_err());
    drop(stream);
}
