//! Terminal sizes: JSON objects one after the other, whatever the cuts between messages.

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;

use crate::api::TerminalSize;

/// Most bytes of one size.
const MAX_OBJECT: usize = 4096;

/// Hands on sizes until the stream ends or sends something else. While the receiver is busy only
/// the last size is kept.
pub(crate) async fn forward(mut stream: impl AsyncRead + Unpin, sizes: mpsc::Sender<TerminalSize>) {
    let mut buffer = Vec::with_capacity(256);
    let mut latest = None;
    loop {
        tokio::select! {
            read = stream.read_buf(&mut buffer) => {
                if !matches!(read, Ok(1..)) {
                    break;
                }
                let Some(size) = take_sizes(&mut buffer) else { break };
                latest = size.or(latest);
            }
            permit = sizes.reserve(), if latest.is_some() => match (permit, latest.take()) {
                (Ok(permit), Some(size)) => permit.send(size),
                _ => break,
            },
        }
    }
    if let Some(size) = latest {
        // The receiver may be gone by now.
        sizes.send(size).await.ok();
    }
    // What else comes is read and dropped, or it would block the whole connection.
    tokio::io::copy(&mut stream, &mut tokio::io::sink())
        .await
        .ok();
}

/// Removes complete objects and gives the last one; `None` when the bytes are no sizes.
#[expect(
    clippy::option_option,
    reason = "no size yet differs from never a size"
)]
fn take_sizes(buffer: &mut Vec<u8>) -> Option<Option<TerminalSize>> {
    let mut objects = serde_json::Deserializer::from_slice(buffer).into_iter::<TerminalSize>();
    let mut latest = None;
    let mut used = 0;
    loop {
        match objects.next() {
            Some(Ok(size)) => latest = Some(size),
            Some(Err(error)) if error.is_eof() => break,
            Some(Err(_)) => return None,
            None => break,
        }
        used = objects.byte_offset();
    }
    buffer.drain(..used);
    (buffer.len() <= MAX_OBJECT).then_some(latest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sizes_across_cuts_and_only_the_last_when_busy() {
        let (sender, mut sizes) = mpsc::channel(1);
        let stream = tokio_test_stream(&[
            b"{\"Width\":80,\"Hei",
            b"ght\":24}\n{\"Width\":81,\"Height\":25}",
            b"{\"width\":100,\"height\":30}",
        ]);
        let forwarding = tokio::spawn(forward(stream, sender));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let mut seen = Vec::new();
        while let Some(size) = sizes.recv().await {
            seen.push((size.width, size.height));
        }
        // Whether the first one left before the second came is the scheduler's choice.
        assert!(
            seen == [(100, 30)] || seen == [(81, 25), (100, 30)],
            "{seen:?}"
        );
        forwarding.await.unwrap();
    }

    fn tokio_test_stream(parts: &[&'static [u8]]) -> impl AsyncRead + Unpin + use<> {
        let parts: Vec<_> = parts
            .iter()
            .map(|part| Ok::<_, std::io::Error>(*part))
            .collect();
        tokio_util::io::StreamReader::new(futures::stream::iter(parts))
    }

    #[test]
    fn hostile_sizes_end_it() {
        for text in [
            "nonsense",
            "[1]",
            r#"{"Width":70000,"Height":1}"#,
            r#"{"Width":-1}"#,
        ] {
            assert_eq!(take_sizes(&mut text.as_bytes().to_vec()), None, "{text}");
        }
        let mut endless = br#"{"Width":1,"#.to_vec();
        endless.resize(MAX_OBJECT + 1, b' ');
        assert_eq!(take_sizes(&mut endless), None);
    }
}
