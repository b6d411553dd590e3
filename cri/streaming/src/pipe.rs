//! The receiving side of one stream: a bounded queue between the connection's reader and the
//! stream's consumer. The connection is not read on while a queue is full.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, ReadBuf};

/// Bytes a stream may hold before its connection is no longer read. One chunk may go beyond.
const CAPACITY: usize = 64 * 1024;
/// What a chunk costs besides its bytes, so that floods of tiny chunks are bounded as well.
const CHUNK_COST: usize = 64;
/// A chunk is a part of the buffer it was read to and keeps all of that. One that is smaller than this
/// is copied instead, bytes.
const SHARED: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client may still send.
    Open,
    /// The client closed the stream in good order.
    Closed,
    /// The stream was reset or its connection lost.
    Reset,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Bytes>,
    held: usize,
    end: End,
    cut: bool,
    abandoned: bool,
    consumer: Option<Waker>,
    producer: Option<Waker>,
}

/// The queue itself, shared by the connection's reader, the consumer and the stream's writer.
#[derive(Debug)]
pub(crate) struct Pipe {
    state: Mutex<State>,
}

impl Pipe {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                held: 0,
                end: End::Open,
                cut: false,
                abandoned: false,
                consumer: None,
                producer: None,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Queues a chunk once there is room. Chunks for ended or abandoned streams are dropped.
    pub(crate) async fn push(&self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        let mut chunk = Some(match chunk.len() {
            ..SHARED => Bytes::copy_from_slice(&chunk),
            _ => chunk,
        });
        poll_fn(|context| {
            let mut state = self.lock();
            if state.abandoned || state.end != End::Open {
                return Poll::Ready(());
            }
            if state.held >= CAPACITY {
                state.producer = Some(context.waker().clone());
                return Poll::Pending;
            }
            if let Some(chunk) = chunk.take() {
                state.held += chunk.len() + CHUNK_COST;
                state.queue.push_back(chunk);
            }
            if let Some(waker) = state.consumer.take() {
                waker.wake();
            }
            Poll::Ready(())
        })
        .await;
    }

    /// The client sends no more.
    pub(crate) fn close(&self) {
        self.finish(End::Closed, false);
    }

    /// The stream is cut: queued data stays readable, then reading fails.
    pub(crate) fn reset(&self) {
        self.finish(End::Reset, true);
    }

    fn finish(&self, end: End, cut: bool) {
        let mut state = self.lock();
        // Input that was closed in good order stays so, whatever happens to the connection later.
        if state.end == End::Open {
            state.end = end;
        }
        state.cut |= cut;
        for waker in [state.consumer.take(), state.producer.take()]
            .into_iter()
            .flatten()
        {
            waker.wake();
        }
    }

    /// Whether the stream was cut, so that writing to it is useless.
    pub(crate) fn is_reset(&self) -> bool {
        self.lock().cut
    }
}

/// What the client sends on one stream. Dropping it discards what is still to come.
#[derive(Debug)]
pub(crate) struct StreamReader {
    pipe: Arc<Pipe>,
}

impl StreamReader {
    pub(crate) fn new(pipe: Arc<Pipe>) -> Self {
        Self { pipe }
    }
}

impl AsyncRead for StreamReader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.pipe.lock();
        if state.queue.is_empty() {
            return match state.end {
                End::Closed => Poll::Ready(Ok(())),
                End::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                End::Open => {
                    state.consumer = Some(context.waker().clone());
                    Poll::Pending
                }
            };
        }
        while buffer.remaining() > 0 {
            let Some(chunk) = state.queue.front_mut() else {
                break;
            };
            let take = chunk.len().min(buffer.remaining());
            buffer.put_slice(&chunk[..take]);
            chunk.advance(take);
            state.held = state.held.saturating_sub(take);
            if state.queue.front().is_some_and(Bytes::is_empty) {
                state.queue.pop_front();
                state.held = state.held.saturating_sub(CHUNK_COST);
            }
        }
        if state.held < CAPACITY
            && let Some(waker) = state.producer.take()
        {
            waker.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        let mut state = self.pipe.lock();
        state.abandoned = true;
        state.queue.clear();
        state.held = 0;
        if let Some(waker) = state.producer.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn holds_the_producer_while_full_and_keeps_order() {
        let pipe = Pipe::new();
        let mut reader = StreamReader::new(pipe.clone());
        pipe.push(Bytes::from(vec![1; CAPACITY])).await;
        let next = pipe.push(Bytes::from_static(b"next"));
        tokio::pin!(next);
        assert!(timeout(Duration::from_millis(20), &mut next).await.is_err());
        let mut first = vec![0; CAPACITY];
        reader.read_exact(&mut first).await.unwrap();
        next.await;
        pipe.close();
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"next");
    }

    #[tokio::test]
    async fn tiny_chunks_are_bounded_too() {
        let pipe = Pipe::new();
        let _reader = StreamReader::new(pipe.clone());
        let flood = async {
            loop {
                pipe.push(Bytes::from_static(b"x")).await;
            }
        };
        assert!(timeout(Duration::from_millis(50), flood).await.is_err());
        assert!(pipe.lock().queue.len() <= CAPACITY / CHUNK_COST + 1);
    }

    #[tokio::test]
    async fn a_tiny_chunk_does_not_keep_the_buffer_that_it_was_read_to() {
        let pipe = Pipe::new();
        let mut buffer = bytes::BytesMut::with_capacity(CAPACITY);
        let begin = buffer.as_ptr();
        buffer.extend_from_slice(b"x");
        pipe.push(buffer.split().freeze()).await;
        // Nobody else has the buffer: it is used again from its beginning on.
        buffer.reserve(CAPACITY);
        assert_eq!(buffer.as_ptr(), begin);
    }

    #[tokio::test]
    async fn a_reset_gives_what_came_before_and_then_fails() {
        let pipe = Pipe::new();
        let mut reader = StreamReader::new(pipe.clone());
        pipe.push(Bytes::from_static(b"last words")).await;
        pipe.reset();
        let mut text = Vec::new();
        let error = reader.read_to_end(&mut text).await.unwrap_err();
        assert_eq!(text, b"last words");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn dropping_the_reader_frees_a_waiting_producer() {
        let pipe = Pipe::new();
        let reader = StreamReader::new(pipe.clone());
        pipe.push(Bytes::from(vec![1; CAPACITY])).await;
        let waiting = tokio::spawn({
            let pipe = pipe.clone();
            async move { pipe.push(Bytes::from_static(b"more")).await }
        });
        tokio::task::yield_now().await;
        drop(reader);
        timeout(Duration::from_secs(1), waiting)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(pipe.lock().held, 0);
    }
}
