//! What exec and attach share: a client's stream and a process's descriptors.

use std::os::fd::OwnedFd;
use std::time::Duration;

use joey_proto::api::stream_input::Input;
use joey_proto::api::stream_output::Output;
use joey_proto::api::{Size, StreamInput, StreamOutput, StreamStart};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::STREAM_DEPTH;
use super::fd::AsyncPipe;
use super::status::Failure;

/// Bytes of one message.
const CHUNK: usize = 32 << 10;
/// More than pipes and the shim hold of an ended process's output, bytes.
const MAX_REST: usize = 4 << 20;
/// How long it may take to read that.
const REST_TIME: Duration = Duration::from_secs(10);

/// Where messages for the client go.
pub type Client = mpsc::Sender<Result<StreamOutput, Status>>;

/// The first message of a client.
pub async fn start_of(stream: &mut Streaming<StreamInput>) -> Result<StreamStart, Failure> {
    let first = stream
        .message()
        .await
        .map_err(|status| Failure::Client(Box::new(status)))?;
    match first.and_then(|message| message.input) {
        Some(Input::Start(start)) => Ok(start),
        _ => Err(Failure::Invalid(
            "the first message is not the start".into(),
        )),
    }
}

/// A message.
pub fn output(output: Output) -> StreamOutput {
    StreamOutput {
        output: Some(output),
    }
}

/// Takes over a descriptor.
pub fn pipe(fd: OwnedFd) -> Result<AsyncPipe, Failure> {
    AsyncPipe::new(fd).map_err(|error| Failure::System("use the process's streams", error))
}

/// One of a process's outputs.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Where it is read.
    pub pipe: &'a AsyncPipe,
    /// As which output it is sent.
    pub wrap: fn(Vec<u8>) -> Output,
}

/// What was written and not sent when the process ended.
#[derive(Debug)]
pub struct Rest {
    bytes: Vec<u8>,
    wrap: fn(Vec<u8>) -> Output,
}

impl Rest {
    /// Sends it, however long the client takes.
    pub async fn send(self, client: &Client) {
        for chunk in self.bytes.chunks(CHUNK) {
            let message = output((self.wrap)(chunk.to_vec()));
            if client.send(Ok(message)).await.is_err() {
                return;
            }
        }
    }
}

/// Sends a process's outputs as fast as the client takes them until it has `ended`; the rest is
/// then taken to memory, so that a slow client holds nothing of the process's. Descendants may keep
/// an output open: after `quiet` without a byte it is left.
pub async fn relay<T>(
    sources: &[Source<'_>],
    ended: impl Future<Output = T>,
    quiet: Duration,
    client: &Client,
) -> (T, Vec<Rest>) {
    let stop = CancellationToken::new();
    let ended = async {
        let value = ended.await;
        stop.cancel();
        value
    };
    let relayed = sources.iter().map(|source| async {
        let mut buffer = vec![0; CHUNK];
        let more = send_until(&stop, *source, &mut buffer, client).await;
        let bytes = match more {
            true => read_rest(source.pipe, &mut buffer, quiet).await,
            false => Vec::new(),
        };
        Rest {
            bytes,
            wrap: source.wrap,
        }
    });
    tokio::join!(ended, futures::future::join_all(relayed))
}

/// False at the output's end or the client's.
async fn send_until(
    stop: &CancellationToken,
    source: Source<'_>,
    buffer: &mut [u8],
    client: &Client,
) -> bool {
    loop {
        // The place first: what was read is never dropped.
        let permit = tokio::select! {
            permit = client.reserve() => permit,
            () = stop.cancelled() => return true,
        };
        let Ok(permit) = permit else { return false };
        let read = tokio::select! {
            read = source.pipe.read(buffer) => read,
            () = stop.cancelled() => return true,
        };
        match read {
            Ok(count @ 1..) => permit.send(Ok(output((source.wrap)(buffer[..count].to_vec())))),
            _ => return false,
        }
    }
}

async fn read_rest(pipe: &AsyncPipe, buffer: &mut [u8], quiet: Duration) -> Vec<u8> {
    let mut rest = Vec::new();
    let reading = async {
        while rest.len() < MAX_REST {
            match tokio::time::timeout(quiet, pipe.read(buffer)).await {
                Ok(Ok(count @ 1..)) => rest.extend_from_slice(&buffer[..count]),
                _ => return,
            }
        }
    };
    // Somebody who goes on writing does not hold up the end for ever.
    drop(tokio::time::timeout(REST_TIME, reading).await);
    rest
}

/// Where a client's input goes.
#[derive(Debug)]
pub enum Sink {
    /// Closed or not asked for.
    None,
    /// A pipe of its own.
    Pipe(AsyncPipe),
    /// A terminal, used for output too.
    Terminal(std::sync::Arc<AsyncPipe>),
}

impl Sink {
    /// Writes; a process that reads no more closes it.
    async fn write(&mut self, bytes: &[u8]) {
        let written = match self {
            Self::None => return,
            Self::Pipe(pipe) => pipe.write_all(bytes).await,
            Self::Terminal(pipe) => pipe.write_all(bytes).await,
        };
        if written.is_err() {
            *self = Self::None;
        }
    }
}

/// Passes the client's input on until its end. `resize` is told the terminal's sizes, also while
/// nobody takes the input.
pub async fn take_all<F>(
    stream: &mut Streaming<StreamInput>,
    mut sink: Sink,
    resize: impl Fn(u16, u16) -> F,
) where
    F: Future<Output = ()>,
{
    let (queue, mut queued) = mpsc::channel::<Vec<u8>>(STREAM_DEPTH);
    let write = async move {
        while let Some(bytes) = queued.recv().await {
            sink.write(&bytes).await;
        }
    };
    let read = async move {
        let mut queue = Some(queue);
        while let Ok(Some(message)) = stream.message().await {
            match (message.input, &queue) {
                (Some(Input::Stdin(bytes)), Some(queue)) => drop(queue.send(bytes).await),
                (Some(Input::CloseStdin(_)), _) => queue = None,
                (Some(Input::Resize(size)), _) => {
                    let (columns, rows) = clamp(&size);
                    resize(columns, rows).await;
                }
                (Some(Input::Stdin(_) | Input::Start(_)) | None, _) => {}
            }
        }
    };
    tokio::join!(write, read);
}

/// A size as the kernel takes it.
pub fn clamp(size: &Size) -> (u16, u16) {
    let side = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    (side(size.columns), side(size.rows))
}
