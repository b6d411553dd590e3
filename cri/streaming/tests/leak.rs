//! Sessions leave no descriptors behind. Alone in its binary: it counts the whole process's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at once"
)]

mod support;

use std::time::Duration;

use joey_streaming::{ExecRequest, Server, StreamingConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// One exec over WebSocket; gives all the server sent, or leaves in the middle.
async fn session(server: &Server, leave: bool) -> Vec<u8> {
    let request = ExecRequest {
        container_id: "machine".into(),
        cmd: ["sh", "-c", "echo hello; cat"].map(str::to_owned).to_vec(),
        stdin: true,
        stdout: true,
        ..ExecRequest::default()
    };
    let url = server.exec_url(request).unwrap();
    let path = url.splitn(4, '/').nth(3).unwrap();
    let mut stream = TcpStream::connect(server.local_address()).await.unwrap();
    let head = format!(
        "GET /{path} HTTP/1.1\r\nHost: joey\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAA\r\n\
         Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    if leave {
        return vec![stream.read_u8().await.unwrap()];
    }
    // Closing channel 0 ends `cat`.
    stream
        .write_all(&[0x82, 0x82, 0, 0, 0, 0, 255, 0])
        .await
        .unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_leave_no_descriptors() {
    let (server, _shutdown) = support::start(StreamingConfig::default()).await;
    session(&server, false).await;
    let before = descriptors();
    for round in 0..40 {
        let bytes = session(&server, round % 4 == 3).await;
        if round % 4 != 3 {
            let text = String::from_utf8_lossy(&bytes);
            assert!(
                text.contains("hello\n") && text.contains("Success"),
                "{text}"
            );
        }
    }
    let settled = async {
        while descriptors() > before {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let result = timeout(Duration::from_secs(10), settled).await;
    assert!(
        result.is_ok(),
        "{} descriptors instead of {before}",
        descriptors()
    );
}
