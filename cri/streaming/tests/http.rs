//! The server against raw HTTP and WebSocket clients: refusals, bounds, and what no usual client
//! does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at once"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use joey_streaming::{
    AttachRequest, BoxedDuplex, ExecRequest, Server, SessionIo, StreamError, StreamingConfig,
    Streams, UrlError,
};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_secs(5);
const SPDY: &str = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n";
const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Sends a request and gives the connection with the answer's head.
async fn ask(server: &Server, method: &str, url: &str, headers: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(server.local_address()).await.unwrap();
    let path = url.splitn(4, '/').nth(3).unwrap();
    let request = format!("{method} /{path} HTTP/1.1\r\nHost: joey\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(SOON, stream.read_u8()).await.unwrap().unwrap());
    }
    (stream, String::from_utf8(head).unwrap())
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

fn exec() -> ExecRequest {
    ExecRequest {
        container_id: "machine".into(),
        cmd: vec!["true".into()],
        stdout: true,
        ..ExecRequest::default()
    }
}

fn attach() -> AttachRequest {
    AttachRequest {
        container_id: "machine".into(),
        stdout: true,
        ..AttachRequest::default()
    }
}

#[tokio::test]
async fn refusals_have_their_codes_and_leave_the_url_usable() {
    let (server, _shutdown) = support::start(StreamingConfig::default()).await;
    let url = server.exec_url(exec()).unwrap();
    let unknown = format!(
        "http://{}/exec/nobody-gave-this-out",
        server.local_address()
    );
    let elsewhere = url.replace("/exec/", "/attach/");
    let version = format!("{SPDY}X-Stream-Protocol-Version: v9.channel.k8s.io\r\n");
    let protocol = format!("{WEBSOCKET}Sec-WebSocket-Protocol: v9.channel.k8s.io\r\n");
    for (method, url, headers, expected) in [
        ("GET", &unknown, SPDY, 404),
        ("GET", &elsewhere, SPDY, 404),
        ("PUT", &url, SPDY, 405),
        ("GET", &url, "", 400),
        ("POST", &url, &version, 403),
        ("GET", &url, &protocol, 403),
    ] {
        let (_, head) = ask(&server, method, url, headers).await;
        assert_eq!(status(&head), expected, "{method} {url} {headers}: {head}");
        if headers == version {
            assert!(head.contains("x-accepted-stream-protocol-versions: v4.channel.k8s.io"));
        }
    }
    for (transport, expected) in [(WEBSOCKET, 101), (WEBSOCKET, 404), (SPDY, 404)] {
        assert_eq!(
            status(&ask(&server, "GET", &url, transport).await.1),
            expected
        );
    }
}

#[tokio::test]
async fn pending_urls_are_bounded_and_invalid_requests_named() {
    let config = StreamingConfig {
        max_pending: 2,
        ..StreamingConfig::default()
    };
    let (server, _shutdown) = support::start(config).await;
    let nobody = ExecRequest {
        container_id: String::new(),
        ..exec()
    };
    let both = ExecRequest {
        tty: true,
        stderr: true,
        ..exec()
    };
    let none = AttachRequest {
        stdout: false,
        ..attach()
    };
    assert_eq!(
        server.exec_url(nobody).unwrap_err(),
        UrlError::MissingContainerId
    );
    assert_eq!(server.exec_url(both).unwrap_err(), UrlError::TtyWithStderr);
    assert_eq!(server.attach_url(none).unwrap_err(), UrlError::NoStream);
    assert_eq!(
        server.port_forward_url("", vec![80]).unwrap_err(),
        UrlError::MissingPodId
    );
    assert_eq!(
        server.port_forward_url("pod", vec![0]).unwrap_err(),
        UrlError::BadPorts
    );
    server.exec_url(exec()).unwrap();
    server.exec_url(exec()).unwrap();
    assert_eq!(
        server.exec_url(exec()).unwrap_err(),
        UrlError::TooManyPending { limit: 2 }
    );
}

#[tokio::test]
async fn connections_beyond_the_bound_are_told_to_come_later() {
    let config = StreamingConfig {
        max_connections: 1,
        ..StreamingConfig::default()
    };
    let (server, _shutdown) = support::start(config).await;
    let first = server.attach_url(attach()).unwrap();
    let second = server.attach_url(attach()).unwrap();
    let (held, head) = ask(&server, "GET", &first, WEBSOCKET).await;
    assert_eq!(status(&head), 101);
    assert_eq!(
        status(&ask(&server, "GET", &second, WEBSOCKET).await.1),
        503
    );
    drop(held);
    timeout(SOON, async {
        while status(&ask(&server, "GET", &second, WEBSOCKET).await.1) != 101 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn connections_without_a_token_take_nobodys_place() {
    let config = StreamingConfig {
        max_connections: 1,
        ..StreamingConfig::default()
    };
    // Both ends of each connection are this process's.
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).unwrap();
    let (server, _shutdown) = support::start(config).await;
    let mut silent = Vec::new();
    for _ in 0..1500 {
        silent.push(TcpStream::connect(server.local_address()).await.unwrap());
    }
    let url = server.attach_url(attach()).unwrap();
    let (held, head) = ask(&server, "GET", &url, WEBSOCKET).await;
    assert_eq!(status(&head), 101);
    // The oldest of them were let go.
    let mut byte = [0];
    let read = timeout(SOON, silent[0].read(&mut byte)).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)));
    drop(held);
}

#[tokio::test]
async fn a_base_url_with_a_path_is_served_under_it() {
    let base_url = Some("https://node.example:1234/streams/".to_owned());
    let config = StreamingConfig {
        base_url,
        ..StreamingConfig::default()
    };
    let (server, _shutdown) = support::start(config).await;
    let url = server.exec_url(exec()).unwrap();
    assert!(
        url.starts_with("https://node.example:1234/streams/exec/"),
        "{url}"
    );
    assert_eq!(status(&ask(&server, "GET", &url, WEBSOCKET).await.1), 101);
    let config = StreamingConfig {
        base_url: Some("node:1".into()),
        ..StreamingConfig::default()
    };
    Server::bind(config, Arc::new(support::Machine))
        .await
        .unwrap_err();
}

/// A client's message, masked with zeroes.
fn message(payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    let mut frame = vec![0x82, 0x80 | length, 0, 0, 0, 0];
    frame.extend(payload);
    frame
}

async fn receive(stream: &mut TcpStream) -> Vec<u8> {
    timeout(SOON, async {
        stream.read_u8().await.unwrap();
        let length = stream.read_u8().await.unwrap();
        let mut payload = vec![0; usize::from(length)];
        stream.read_exact(&mut payload).await.unwrap();
        payload
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn port_forward_channels_without_spdy() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 4];
        stream.read_exact(&mut asked).await.unwrap();
        stream.write_all(b"pong").await.unwrap();
    });
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let (server, _shutdown) = support::start(StreamingConfig::default()).await;
    let url = server.port_forward_url("pod", vec![open, closed]).unwrap();
    let headers = format!("{WEBSOCKET}Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n");
    let (mut stream, head) = ask(&server, "GET", &url, &headers).await;
    assert_eq!(status(&head), 101);
    stream.write_all(&message(b"\x00ping")).await.unwrap();
    let mut channels = vec![Vec::new(); 4];
    loop {
        let payload = receive(&mut stream).await;
        if payload == 1000_u16.to_be_bytes() {
            break;
        }
        channels[usize::from(payload[0])].extend_from_slice(&payload[1..]);
        // The forward ends when both its ends did; the client can only end the connection.
        if channels[0].ends_with(b"pong") && channels[3].len() > 2 {
            break;
        }
    }
    assert_eq!(channels[0], [&open.to_le_bytes()[..], b"pong"].concat());
    assert_eq!(channels[1], open.to_le_bytes());
    assert_eq!(channels[2], closed.to_le_bytes());
    let text = String::from_utf8_lossy(&channels[3][2..]).into_owned();
    assert!(text.contains("Connection refused"), "{text}");
}

/// Says when a session's future was dropped.
#[derive(Debug)]
struct Watched(mpsc::Sender<&'static str>);

struct Guard(mpsc::Sender<&'static str>, &'static str);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.try_send(self.1).ok();
    }
}

#[async_trait]
impl Streams for Watched {
    async fn exec(&self, _: ExecRequest, io: SessionIo) -> Result<i32, StreamError> {
        io.closed.cancelled().await;
        self.0.send("exec saw its client leave").await.ok();
        Ok(0)
    }

    async fn attach(&self, _: AttachRequest, _: SessionIo) -> Result<(), StreamError> {
        let _guard = Guard(self.0.clone(), "attach was dropped");
        std::future::pending().await
    }

    async fn port_forward(&self, _: &str, _: u16, _: BoxedDuplex) -> Result<(), StreamError> {
        let _guard = Guard(self.0.clone(), "forward was dropped");
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_session() {
    let (sender, mut seen) = mpsc::channel(8);
    let streams = Arc::new(Watched(sender));
    let server = Server::bind(StreamingConfig::default(), streams)
        .await
        .unwrap();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(server.clone().serve(shutdown.clone()));
    for (url, expected) in [
        (
            server.exec_url(exec()).unwrap(),
            "exec saw its client leave",
        ),
        (server.attach_url(attach()).unwrap(), "attach was dropped"),
        (
            server.port_forward_url("pod", vec![80]).unwrap(),
            "forward was dropped",
        ),
    ] {
        let (client, head) = ask(&server, "GET", &url, WEBSOCKET).await;
        assert_eq!(status(&head), 101);
        drop(client);
        assert_eq!(timeout(SOON, seen.recv()).await.unwrap(), Some(expected));
    }
    // Told to stop, the server cuts what is left.
    let url = server.attach_url(attach()).unwrap();
    let (mut client, head) = ask(&server, "GET", &url, WEBSOCKET).await;
    assert_eq!(status(&head), 101);
    shutdown.cancel();
    timeout(SOON, serving).await.unwrap().unwrap();
    assert_eq!(
        timeout(SOON, seen.recv()).await.unwrap(),
        Some("attach was dropped")
    );
    let mut rest = Vec::new();
    timeout(SOON, client.read_to_end(&mut rest))
        .await
        .unwrap()
        .ok();
}

#[tokio::test]
async fn streams_must_come_in_time() {
    let creation_timeout = Duration::from_millis(100);
    let config = StreamingConfig {
        creation_timeout,
        ..StreamingConfig::default()
    };
    let (server, _shutdown) = support::start(config).await;
    let url = server.exec_url(exec()).unwrap();
    let (mut client, head) = ask(&server, "POST", &url, SPDY).await;
    assert_eq!(status(&head), 101);
    let mut rest = Vec::new();
    timeout(SOON, client.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    // Settings and window, then GOAWAY.
    let goaway = [0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    assert!(rest.ends_with(&goaway), "{rest:?}");
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let (server, _shutdown) = support::start(StreamingConfig::default()).await;
    let mut stream = TcpStream::connect(server.local_address()).await.unwrap();
    let flood = async {
        stream.write_all(b"GET /exec/x HTTP/1.1\r\n").await?;
        loop {
            stream
                .write_all(b"X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n")
                .await?;
        }
    };
    let result: std::io::Result<()> = timeout(SOON, flood).await.unwrap();
    result.unwrap_err();
}
