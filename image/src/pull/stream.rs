//! From a blob source to bytes: resuming transfers, and the bridge to blocking readers.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures::StreamExt as _;
use joey_p2p::{BlobRange, BlobSource, FetchError, FetchErrorKind};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::digest::Digest;

/// Chunks in flight between the network and a blocking reader.
const CHANNEL: usize = 16;
/// Resumptions without real progress between them.
const MAX_RESUMES: u32 = 5;
/// What counts as real progress, in bytes.
const PROGRESS: u64 = 64 << 10;
const FIRST_DELAY: Duration = Duration::from_millis(300);
const MAX_DELAY: Duration = Duration::from_secs(20);

/// Sends a whole blob into `sink`, resuming where a transfer broke off. Ends early, with success,
/// when the receiver has gone.
pub(crate) async fn pump(
    source: Arc<dyn BlobSource>,
    blob: BlobRange,
    sink: mpsc::Sender<Bytes>,
    mut on_bytes: impl FnMut(u64) + Send,
) -> Result<(), FetchError> {
    let mut offset = 0;
    let mut safe_at = 0;
    let mut resumes = 0;
    while offset < blob.size {
        let error = match source.fetch(&blob.from_offset(offset)).await {
            Err(error) => error,
            Ok(mut stream) => loop {
                match stream.next().await {
                    Some(Ok(chunk)) => {
                        offset += chunk.len() as u64;
                        on_bytes(chunk.len() as u64);
                        if offset > blob.size {
                            return Err(FetchError::new(
                                FetchErrorKind::Invalid,
                                format!("blob {} is longer than its descriptor says", blob.digest),
                            ));
                        }
                        if sink.send(chunk).await.is_err() {
                            return Ok(());
                        }
                    }
                    Some(Err(error)) => break error,
                    None if offset == blob.size => return Ok(()),
                    None => {
                        break FetchError::new(
                            FetchErrorKind::Interrupted,
                            format!("blob {} ended after {offset} bytes", blob.digest),
                        );
                    }
                }
            },
        };
        if offset >= safe_at + PROGRESS {
            resumes = 0;
            safe_at = offset;
        }
        if !error.is_transient() || resumes >= MAX_RESUMES {
            return Err(error);
        }
        let delay = match error.kind {
            FetchErrorKind::RateLimited { retry_after } => retry_after.unwrap_or(MAX_DELAY),
            _ => FIRST_DELAY * 2u32.pow(resumes),
        };
        resumes += 1;
        tracing::debug!(digest = blob.digest, offset, %error, "resuming a transfer");
        tokio::time::sleep(delay.min(MAX_DELAY)).await;
    }
    Ok(())
}

/// Fetches a small blob whole and checks its digest.
pub(crate) async fn fetch_small(
    source: Arc<dyn BlobSource>,
    digest: Digest,
    size: u64,
) -> Result<Bytes, FetchError> {
    let (sink, mut chunks) = mpsc::channel::<Bytes>(CHANNEL);
    let collect = async {
        let mut whole = BytesMut::new();
        while let Some(chunk) = chunks.recv().await {
            whole.extend_from_slice(&chunk);
        }
        whole.freeze()
    };
    let blob = BlobRange::whole(digest.to_string(), size);
    let (pumped, whole) = tokio::join!(pump(source, blob, sink, |_| ()), collect);
    pumped?;
    if Digest::of(&whole) == digest {
        Ok(whole)
    } else {
        Err(FetchError::new(
            FetchErrorKind::Invalid,
            format!("blob {digest} does not have its digest"),
        ))
    }
}

/// A channel's two ends: chunks in, blocking reads out.
pub(crate) fn bridge() -> (mpsc::Sender<Bytes>, ChannelReader) {
    let (sink, chunks) = mpsc::channel(CHANNEL);
    let reader = ChannelReader {
        chunks,
        current: Bytes::new(),
        hash: Sha256::new(),
    };
    (sink, reader)
}

/// Reads chunks from a channel and hashes them. For blocking threads only.
#[derive(Debug)]
pub(crate) struct ChannelReader {
    chunks: mpsc::Receiver<Bytes>,
    current: Bytes,
    hash: Sha256,
}

impl ChannelReader {
    fn receive(&mut self) -> Option<Bytes> {
        let chunk = self.chunks.blocking_recv()?;
        self.hash.update(&chunk);
        Some(chunk)
    }

    /// The first bytes, left in place; fewer than asked for only at the end.
    pub fn peek(&mut self, count: usize) -> &[u8] {
        while self.current.len() < count {
            let Some(chunk) = self.receive() else { break };
            let mut joined = BytesMut::from(self.current.as_ref());
            joined.extend_from_slice(&chunk);
            self.current = joined.freeze();
        }
        &self.current[..count.min(self.current.len())]
    }

    /// Reads what is left and returns the digest of everything.
    pub fn finish(mut self) -> Digest {
        while self.receive().is_some() {}
        Digest::finish(self.hash)
    }
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for ChannelReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() {
            match self.receive() {
                Some(chunk) => self.current = chunk,
                None => break,
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, count: usize) {
        self.current.advance(count.min(self.current.len()));
    }
}

/// Hashes what is read and stops at a bound.
#[derive(Debug)]
pub(crate) struct HashingReader<R> {
    inner: R,
    hash: Sha256,
    left: u64,
}

impl<R: Read> HashingReader<R> {
    pub fn new(inner: R, limit: u64) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            left: limit,
        }
    }

    /// Reads what is left and returns the digest of everything.
    pub fn finish(mut self) -> io::Result<Digest> {
        let mut buffer = vec![0u8; 64 << 10];
        while self.read(&mut buffer)? > 0 {}
        Ok(Digest::finish(self.hash))
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the layer unpacks to more than is allowed",
            )
        })?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use joey_p2p::ByteStream;

    use super::*;

    /// Breaks off after a few bytes, every time.
    #[derive(Debug)]
    struct Flaky {
        data: Bytes,
        step: usize,
        fetches: AtomicUsize,
    }

    #[async_trait]
    impl BlobSource for Flaky {
        async fn fetch(&self, blob: &BlobRange) -> Result<ByteStream, FetchError> {
            self.fetches.fetch_add(1, Ordering::Relaxed);
            let start = usize::try_from(blob.range.start).unwrap();
            let end = (start + self.step).min(self.data.len());
            let chunk = self.data.slice(start..end);
            Ok(futures::stream::iter([Ok(chunk)]).boxed())
        }
    }

    fn flaky(size: usize, step: usize) -> Arc<Flaky> {
        Arc::new(Flaky {
            data: vec![7u8; size].into(),
            step,
            fetches: AtomicUsize::new(0),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_transfer_goes_on_where_it_broke_off() {
        let source = flaky(1 << 20, 100 << 10);
        let digest = Digest::of(&source.data);
        let whole = fetch_small(source.clone(), digest, 1 << 20).await.unwrap();
        assert_eq!(whole, source.data);
        assert_eq!(source.fetches.load(Ordering::Relaxed), 11);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_given_up_and_a_lie_is_found() {
        let source = flaky(1 << 20, 1);
        let digest = Digest::of(&source.data);
        let error = fetch_small(source.clone(), digest, 1 << 20).await;
        assert_eq!(error.unwrap_err().kind, FetchErrorKind::Interrupted);
        assert!(source.fetches.load(Ordering::Relaxed) < 10);
        let source = flaky(10, 10);
        let error = fetch_small(source, Digest::of(b"other"), 10).await;
        assert_eq!(error.unwrap_err().kind, FetchErrorKind::Invalid);
    }
}
