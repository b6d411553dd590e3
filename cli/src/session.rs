//! A stream to a process: input, output, sizes, signals, detach keys.

use std::process::ExitCode;

use joey_proto::api::stream_input::Input;
use joey_proto::api::stream_output::Output;
use joey_proto::api::{KillContainerRequest, Size, StreamInput, StreamOutput, StreamStart};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::client::Client;
use crate::error::CliError;
use crate::signals::{ENDING, Event, FORWARDED, Signals};
use crate::stdio::{self, Target, Writer};
use crate::terminal::{self, DetachKeys, RawMode};

/// Messages to the daemon that may wait.
const DEPTH: usize = 16;
const CHUNK: usize = 32 << 10;
/// 128 + SIGPIPE.
const UNREAD: u8 = 141;
/// What a shell adds to a signal's number.
const SIGNALLED: u32 = 128;
/// So many signals end joey while the process does not start, as docker has it.
const IMPATIENT: usize = 3;

/// How the process is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A new process; it ends with joey.
    Exec,
    /// That of a container which is joey's own: signals are forwarded.
    Run,
    /// That of a container which was there before: signals are forwarded, but not from a terminal,
    /// whose end is not the container's.
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
    /// A signal ended joey.
    Signalled(u32),
}

impl End {
    /// As joey's own.
    pub fn exit_code(self) -> ExitCode {
        match self {
            Self::Exited(code) => ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
            Self::Detached => ExitCode::SUCCESS,
            // As if SIGPIPE had ended joey.
            Self::Unread => ExitCode::from(UNREAD),
            Self::Signalled(number) => {
                ExitCode::from(u8::try_from(SIGNALLED + number).unwrap_or(u8::MAX))
            }
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
    let (tty, stdin) = (start.tty, start.stdin);
    let forwards = match kind {
        Kind::Run => true,
        Kind::Attach => !tty,
        Kind::Exec => false,
    };
    let listened = match (forwards, &raw) {
        (true, _) => FORWARDED,
        (false, Some(_)) => ENDING,
        (false, None) => &[],
    };
    let mut session = Session {
        client: client.clone(),
        container: start.container.clone(),
        forwards,
        signals: Signals::listen(tty, listened)?,
        keys: (tty && stdin && kind != Kind::Exec).then(DetachKeys::default),
        resized: None,
    };
    let (sender, receiver) = mpsc::channel(DEPTH);
    send(&sender, Input::Start(start)).await;
    let outputs = match session.open(kind, ReceiverStream::new(receiver)).await? {
        Ok(outputs) => outputs,
        Err(end) => return Ok(end),
    };
    let typed = stdin.then(read_stdin).transpose()?;
    let end = session.relay(&sender, outputs, typed).await;
    drop(raw);
    end
}

/// A session and what happens to it besides its streams.
struct Session {
    client: Client,
    container: String,
    /// Whether the process gets the signals that joey gets; else they end joey.
    forwards: bool,
    signals: Signals,
    keys: Option<DetachKeys>,
    /// A size that the daemon is yet to be told.
    resized: Option<Size>,
}

impl Session {
    /// Waits for the process's start: what it writes, or how joey ended before.
    async fn open(
        &mut self,
        kind: Kind,
        requests: ReceiverStream<StreamInput>,
    ) -> Result<Result<Streaming<StreamOutput>, End>, CliError> {
        let mut client = self.client.clone();
        let opened = async {
            match kind {
                Kind::Exec => client.exec(requests).await,
                Kind::Run | Kind::Attach => client.attach(requests).await,
            }
        };
        tokio::pin!(opened);
        let mut early = Vec::new();
        loop {
            tokio::select! {
                outputs = &mut opened => {
                    // Nothing took them before.
                    for number in early {
                        self.forward(number);
                    }
                    return Ok(Ok(outputs?.into_inner()));
                }
                event = self.signals.next() => match event {
                    Event::Resized => self.resized = terminal::size(),
                    Event::Got(number) => {
                        early.push(number);
                        if !self.forwards || early.len() >= IMPATIENT {
                            return Ok(Err(End::Signalled(number)));
                        }
                    }
                },
            }
        }
    }

    /// Passes everything on until the end. A process that takes no input must still be shown and get
    /// its signals, and so must one whose output nobody takes: nothing is awaited within an arm.
    async fn relay(
        &mut self,
        sender: &mpsc::Sender<StreamInput>,
        mut outputs: Streaming<StreamOutput>,
        mut typed: Option<Typed>,
    ) -> Result<End, CliError> {
        let writer = Writer::start()?;
        let end = loop {
            tokio::select! {
                shown = show(&mut outputs, &writer) => match shown {
                    Ok(Shown::More) => {}
                    Ok(Shown::End(end)) => break Ok(end),
                    Ok(Shown::Unwritten) => {
                        writer.finish().await?;
                        return Ok(End::Unread);
                    }
                    // What came before it is still shown.
                    Err(error) => break Err(error),
                },
                (place, next) = next(sender, &mut self.resized, &mut typed) => {
                    if !pass(place, next, &mut self.keys, &mut typed) {
                        return Ok(End::Detached);
                    }
                }
                event = self.signals.next() => match event {
                    Event::Resized => self.resized = terminal::size(),
                    Event::Got(number) if self.forwards => self.forward(number),
                    Event::Got(number) => return Ok(End::Signalled(number)),
                },
            }
        };
        let finished = writer.finish();
        tokio::pin!(finished);
        loop {
            tokio::select! {
                read = &mut finished => return if read? { end } else { Ok(End::Unread) },
                event = self.signals.next() => if let Event::Got(number) = event {
                    // The process has ended; who reads its output is not waited for any longer.
                    return Ok(End::Signalled(number));
                },
            }
        }
    }

    fn forward(&self, signal: u32) {
        let mut client = self.client.clone();
        let request = KillContainerRequest {
            container: self.container.clone(),
            signal,
        };
        // A container that has just ended takes no signal.
        tokio::spawn(async move { drop(client.kill_container(request).await) });
    }
}

async fn send(sender: &mpsc::Sender<StreamInput>, input: Input) {
    // When the daemon is gone, the output's end tells so.
    drop(sender.send(StreamInput { input: Some(input) }).await);
}

/// What became of a message.
enum Shown {
    More,
    /// It was the last.
    End(End),
    /// Nothing can be written any more.
    Unwritten,
}

/// Waits for room, then for a message that is written there. Safe to cancel.
async fn show(outputs: &mut Streaming<StreamOutput>, writer: &Writer) -> Result<Shown, CliError> {
    let Some(place) = writer.place().await else {
        return Ok(Shown::Unwritten);
    };
    let message = outputs.message().await?.ok_or(CliError::CutOff)?;
    match message.output {
        Some(Output::Stdout(bytes)) => place.send((Target::Out, bytes)),
        Some(Output::Stderr(bytes)) => place.send((Target::Err, bytes)),
        Some(Output::ExitCode(code)) => return Ok(Shown::End(End::Exited(code))),
        None => {}
    }
    Ok(Shown::More)
}

/// What is typed, in order; an end when there is no more.
type Typed = mpsc::Receiver<Vec<u8>>;

/// Reads in a thread of its own: a read of a terminal can't be given up, and it ends with joey.
fn read_stdin() -> Result<Typed, CliError> {
    let (sender, receiver) = mpsc::channel(DEPTH);
    let read = move || {
        let mut buffer = vec![0; CHUNK];
        // An input that can't be read is at its end.
        while let Ok(count @ 1..) = stdio::read(&mut buffer) {
            if sender.blocking_send(buffer[..count].to_vec()).is_err() {
                return;
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
