//! WebSocket channels against a client made of raw frames.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::timeout;

use super::frame::tests::client;
use super::*;

const V5: Codec = Codec::Binary {
    close_signals: true,
};

fn session(codec: Codec, count: u8) -> (Session, Vec<Channel>, DuplexStream) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (reader, writer) = tokio::io::split(near);
    let connection = Connection {
        reader: Box::new(reader),
        writer: Box::new(writer),
        buffered: BytesMut::new(),
    };
    let (session, channels) = start(connection, Duration::from_secs(60), codec, count);
    (session, channels, far)
}

async fn read(channel: &mut Channel, count: usize) -> String {
    let mut bytes = vec![0; count];
    let read = channel.reader.read_exact(&mut bytes);
    timeout(Duration::from_secs(5), read)
        .await
        .unwrap()
        .unwrap();
    String::from_utf8(bytes).unwrap()
}

async fn sent(far: &mut DuplexStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    timeout(Duration::from_secs(5), far.read_exact(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(bytes, expected);
}

#[tokio::test]
async fn channels_and_close_signals() {
    let (session, mut channels, mut far) = session(V5, 5);
    far.write_all(&client(0x82, b"\x00hello")).await.unwrap();
    far.write_all(&client(0x82, b"\x09nobody")).await.unwrap();
    far.write_all(&client(0x82, b"")).await.unwrap();
    far.write_all(&client(0x02, b"\x04")).await.unwrap();
    far.write_all(&client(0x80, b"{}")).await.unwrap();
    far.write_all(&client(0x82, b"\xff\x00")).await.unwrap();
    assert_eq!(read(&mut channels[0], 5).await, "hello");
    assert_eq!(read(&mut channels[4], 2).await, "{}");
    let mut rest = Vec::new();
    channels[0].reader.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    channels[1].writer.write_all(b"out").await.unwrap();
    sent(&mut far, b"\x82\x04\x01out").await;
    far.write_all(&client(0x89, b"beat")).await.unwrap();
    sent(&mut far, b"\x8a\x04beat").await;
    let closing = tokio::spawn(session.close());
    sent(&mut far, b"\x88\x02\x03\xe8").await;
    far.write_all(&client(0x88, b"\x03\xe8")).await.unwrap();
    drop(far);
    timeout(Duration::from_secs(5), closing)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn before_v5_channel_255_is_no_signal() {
    let (_session, mut channels, mut far) = session(
        Codec::Binary {
            close_signals: false,
        },
        5,
    );
    far.write_all(&client(0x82, b"\xff\x00")).await.unwrap();
    far.write_all(&client(0x82, b"\x00x")).await.unwrap();
    assert_eq!(read(&mut channels[0], 1).await, "x");
}

#[tokio::test]
async fn base64_across_fragments_and_with_bad_messages_skipped() {
    let (_session, mut channels, mut far) = session(Codec::Base64, 5);
    far.write_all(&client(0x81, b"0!!!!")).await.unwrap();
    far.write_all(&client(0x81, b"/YQ==")).await.unwrap();
    far.write_all(&client(0x01, b"0aGVs")).await.unwrap();
    far.write_all(&client(0x00, b"bG8s")).await.unwrap();
    far.write_all(&client(0x00, b"IH")).await.unwrap();
    far.write_all(&client(0x80, b"dvcmxk")).await.unwrap();
    far.write_all(&client(0x81, b"0IQ==")).await.unwrap();
    assert_eq!(read(&mut channels[0], 13).await, "hello, world!");
    channels[1].writer.write_all(b"a").await.unwrap();
    sent(&mut far, b"\x81\x051YQ==").await;
}

#[tokio::test]
async fn broken_clients_get_a_protocol_error() {
    for bytes in [
        client(0x82, b"\xff"),
        client(0x82, b"\xff\x09"),
        client(0x82, b"\xff\x00\x01"),
        client(0x83, b"x"),
        vec![0x82, 0x01, b'x'],
    ] {
        let (session, mut channels, mut far) = session(V5, 5);
        far.write_all(&bytes).await.unwrap();
        sent(&mut far, b"\x88\x02\x03\xea").await;
        let mut buffer = [0];
        let error = channels[0].reader.read(&mut buffer).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        channels[1].writer.write(b"x").await.unwrap_err();
        timeout(Duration::from_secs(5), session.closed().cancelled())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_clients_good_bye_is_answered_at_once() {
    let (session, _channels, mut far) = session(V5, 5);
    far.write_all(&client(0x88, b"\x03\xe8")).await.unwrap();
    let mut bytes = Vec::new();
    timeout(Duration::from_secs(5), far.read_to_end(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(bytes, b"\x88\x02\x03\xe8");
    session.closed().cancelled().await;
}

#[tokio::test]
async fn a_tunnel_is_one_stream() {
    let (_session, mut channels, mut far) = session(Codec::Tunnel, 1);
    far.write_all(&client(0x82, b"one ")).await.unwrap();
    far.write_all(&client(0x82, b"two")).await.unwrap();
    assert_eq!(read(&mut channels[0], 7).await, "one two");
    channels[0].writer.write_all(b"\xffany").await.unwrap();
    sent(&mut far, b"\x82\x04\xffany").await;
    channels[0].writer.shutdown().await.unwrap();
    sent(&mut far, b"\x88\x02\x03\xe8").await;
}

#[tokio::test]
async fn random_frames_never_panic() {
    use rand::{RngCore, SeedableRng};
    for seed in 0..2000 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let mut bytes = vec![0; 128];
        random.fill_bytes(&mut bytes);
        bytes[0] &= 0x8f;
        bytes[1] |= 0x80;
        let mut buffer = BytesMut::from(&bytes[..]);
        let mut decoder = Decoder::default();
        let mut channels = Channels::new(Codec::Base64, vec![Pipe::new()]);
        while let Ok(Some(event)) = decoder.next(&mut buffer) {
            if let Event::Part {
                first,
                text,
                chunk,
                last,
            } = event
                && channels.part(first, text, chunk, last).await.is_err()
            {
                break;
            }
        }
    }
}
