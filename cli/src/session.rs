//! A stream to a process: input, output, sizes, signals, detach keys.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use joey_proto::api::stream_input::Input;
use joey_proto::api::stream_output::Output;
use joey_proto::api::{KillContainerRequest, Size, StreamInput, StreamOutput, StreamStart};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::client::Client;
use crate::error::CliError;
use crate::terminal::{self, DetachKeys, RawMode};

/// Messages to the daemon that may wait.
const DEPTH: usize = 16;
const CHUNK: usize = 32 << 10;
/// 128 + SIGPIPE.
const UNREAD: u8 = 141;
/// What the container gets of what joey gets.
const FORWARDED: [SignalKind; 6] = [
    SignalKind::hangup(),
    SignalKind::interrupt(),
    SignalKind::quit(),
    SignalKind::terminate(),
    SignalKind::user_defined1(),
    SignalKind::user_defined2(),
];

/// How the process is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A new process; a signal to joey ends it with joey.
    Exec,
    /// The container's own; signals are forwarded.
    Attach,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The process ended.
    Exited(i32),
    /// The user left it alone.
    Detached,
    /// Nobody reads joey's output any more.
    Unread,
}

impl End {
    /// As joey's own.
    pub fn exit_code(self) -> ExitCode {
        match self {
            Self::Exited(code) => ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
            Self::Detached => ExitCode::SUCCESS,
            // As if SIGPIPE had ended joey.
            Self::Unread => ExitCode::from(UNREAD),
        }
    }
}

/// Runs a session to its end.
///
/// # Errors
/// When the daemon refuses, the connection breaks, or there is no terminal to pass on.
pub async fn run(client: &Client, kind: Kind, mut start: StreamStart) -> Result<End, CliError> {
    let raw = if start.tty && start.stdin {
        Some(RawMode::enter()?)
    } else {
        None
    };
    start.size = if start.tty { terminal::size() } else { None };
    let (tty, stdin, container) = (start.tty, start.stdin, start.container.clone());
    let (sender, receiver) = mpsc::channel(DEPTH);
    send(&sender, Input::Start(start)).await;
    let mut signals = Signals::listen(kind, tty)?;
    let requests = ReceiverStream::new(receiver);
    let outputs = match kind {
        Kind::Exec => client.clone().exec(requests).await?,
        Kind::Attach => client.clone().attach(requests).await?,
    };
    let mut outputs = outputs.into_inner();
    let mut keys = (tty && stdin).then(DetachKeys::default);
    let mut typed = stdin.then(read_stdin).transpose()?;
    let mut resized = None;
    // A process that takes no input must still be shown and get its signals: nothing is awaited
    // within an arm.
    let end = loop {
        tokio::select! {
            end = show(&mut outputs) => if let Some(end) = end? {
                break end;
            },
            (place, next) = next(&sender, &mut resized, &mut typed) => {
                if !pass(place, next, &mut keys, &mut typed) {
                    break End::Detached;
                }
            }
            event = signals.next() => match event {
                Event::Resized => resized = terminal::size(),
                Event::Forward(number) => {
                    tokio::spawn(forward(client.clone(), container.clone(), number));
                }
            },
        }
    };
    drop(raw);
    Ok(end)
}

async fn send(sender: &mpsc::Sender<StreamInput>, input: Input) {
    // When the daemon is gone, the output's end tells so.
    drop(sender.send(StreamInput { input: Some(input) }).await);
}

/// Shows one message; the end where it is the last.
async fn show(outputs: &mut Streaming<StreamOutput>) -> Result<Option<End>, CliError> {
    let message = outputs.message().await?.ok_or(CliError::CutOff)?;
    let written = match message.output {
        Some(Output::Stdout(bytes)) => write(&mut io::stdout().lock(), &bytes),
        Some(Output::Stderr(bytes)) => write(&mut io::stderr().lock(), &bytes),
        Some(Output::ExitCode(code)) => return Ok(Some(End::Exited(code))),
        None => Ok(()),
    };
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Some(End::Unread)),
        Err(error) => Err(CliError::Io("write the output", error)),
        Ok(()) => Ok(None),
    }
}

fn write(output: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    output.write_all(bytes).and_then(|()| output.flush())
}

/// What is typed, in order; an end when there is no more.
type Typed = mpsc::Receiver<Vec<u8>>;

/// Reads in a thread of its own: a read of a terminal can't be given up, and it ends with joey.
fn read_stdin() -> Result<Typed, CliError> {
    let (sender, receiver) = mpsc::channel(DEPTH);
    let read = move || {
        let mut buffer = vec![0; CHUNK];
        loop {
            match rustix::io::read(io::stdin(), &mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    if sender.blocking_send(buffer[..count].to_vec()).is_err() {
                        return;
                    }
                }
                Err(error) if io::Error::from(error).kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    };
    std::thread::Builder::new()
        .name("stdin".into())
        .spawn(read)
        .map_err(|error| CliError::Io("read standard input", error))?;
    Ok(receiver)
}

/// What the daemon is told next.
enum Next {
    Size(Size),
    Typed(Vec<u8>),
    /// Once, at the input's end.
    End,
}

/// Waits for a place in the queue, then for something to put there. Safe to cancel.
async fn next<'a>(
    sender: &'a mpsc::Sender<StreamInput>,
    resized: &mut Option<Size>,
    typed: &mut Option<Typed>,
) -> (mpsc::Permit<'a, StreamInput>, Next) {
    let Ok(place) = sender.reserve().await else {
        // The daemon is gone: the output's end tells so.
        return std::future::pending().await;
    };
    if let Some(size) = resized.take() {
        return (place, Next::Size(size));
    }
    match typed {
        Some(receiver) => (place, receiver.recv().await.map_or(Next::End, Next::Typed)),
        None => std::future::pending().await,
    }
}

/// Passes it on; false when the user typed the detach keys.
fn pass(
    place: mpsc::Permit<'_, StreamInput>,
    next: Next,
    keys: &mut Option<DetachKeys>,
    typed: &mut Option<Typed>,
) -> bool {
    let (input, detach) = match next {
        Next::Size(size) => (Some(Input::Resize(size)), false),
        Next::End => {
            *typed = None;
            (Some(Input::CloseStdin(true)), false)
        }
        Next::Typed(bytes) => {
            let (bytes, detach) = match keys {
                Some(keys) => keys.filter(&bytes),
                None => (bytes, false),
            };
            ((!bytes.is_empty()).then_some(Input::Stdin(bytes)), detach)
        }
    };
    if input.is_some() {
        place.send(StreamInput { input });
    }
    !detach
}

async fn forward(mut client: Client, container: String, number: u32) {
    let request = KillContainerRequest {
        container,
        signal: number,
    };
    // A container that has just ended takes no signal.
    drop(client.kill_container(request).await);
}

/// What a signal means.
#[derive(Debug, Clone, Copy)]
enum Event {
    Resized,
    Forward(u32),
}

/// The signals joey listens to during a session.
#[derive(Debug)]
struct Signals {
    resized: Option<Signal>,
    forwarded: Vec<(u32, Signal)>,
}

impl Signals {
    fn listen(kind: Kind, tty: bool) -> Result<Self, CliError> {
        let listen = |kind| signal(kind).map_err(|error| CliError::Io("listen to signals", error));
        let resized = if tty {
            Some(listen(SignalKind::window_change())?)
        } else {
            None
        };
        let mut forwarded = Vec::new();
        if kind == Kind::Attach {
            for kind in FORWARDED {
                let number = kind.as_raw_value().unsigned_abs();
                forwarded.push((number, listen(kind)?));
            }
        }
        Ok(Self { resized, forwarded })
    }

    async fn next(&mut self) -> Event {
        let resized = async {
            match &mut self.resized {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        let waiting = self.forwarded.iter_mut().map(|(number, signal)| {
            let number = *number;
            Box::pin(async move {
                signal.recv().await;
                number
            })
        });
        let waiting: Vec<_> = waiting.collect();
        let forwarded = async {
            match waiting.is_empty() {
                true => std::future::pending().await,
                false => futures::future::select_all(waiting).await.0,
            }
        };
        tokio::select! {
            _ = resized => Event::Resized,
            number = forwarded => Event::Forward(number),
        }
    }
}
