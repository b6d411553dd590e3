//! What exec and attach share: a client's stream and a process's descriptors.

use std::os::fd::OwnedFd;

use joey_proto::api::stream_input::Input;
use joey_proto::api::stream_output::Output;
use joey_proto::api::{Size, StreamInput, StreamOutput, StreamStart};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::fd::AsyncPipe;
use super::status::Failure;

/// Bytes of one message.
const CHUNK: usize = 32 << 10;

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

/// Sends what a descriptor gives until its end or the client's.
pub async fn send_all(pipe: Option<&AsyncPipe>, wrap: fn(Vec<u8>) -> Output, client: &Client) {
    let Some(pipe) = pipe else { return };
    let mut buffer = vec![0; CHUNK];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        if client
            .send(Ok(output(wrap(buffer[..count].to_vec()))))
            .await
            .is_err()
        {
            return;
        }
    }
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

/// Passes the client's input on until its end. `resize` is told the terminal's sizes.
pub async fn take_all<F>(
    stream: &mut Streaming<StreamInput>,
    mut sink: Sink,
    resize: impl Fn(u16, u16) -> F,
) where
    F: Future<Output = ()>,
{
    while let Ok(Some(message)) = stream.message().await {
        match message.input {
            Some(Input::Stdin(bytes)) => sink.write(&bytes).await,
            Some(Input::CloseStdin(_)) => sink = Sink::None,
            Some(Input::Resize(size)) => {
                let (columns, rows) = clamp(&size);
                resize(columns, rows).await;
            }
            Some(Input::Start(_)) | None => {}
        }
    }
}

/// A size as the kernel takes it.
pub fn clamp(size: &Size) -> (u16, u16) {
    let side = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    (side(size.columns), side(size.rows))
}
