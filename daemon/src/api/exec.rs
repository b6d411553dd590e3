//! `Exec`: a further process in a running container.

use std::sync::Arc;
use std::time::Duration;

use joey_proto::api::stream_output::Output;
use joey_proto::api::{StreamInput, StreamStart};
use joey_runtime::{ExecConfig, ExecSession};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::fd::AsyncPipe;
use super::sessions::Session;
use super::status::Failure;
use super::stream::{Client, Sink, Source, clamp, output, pipe, relay, start_of, take_all};
use super::{STREAM_DEPTH, State, Stream};
use joey_proto::api::StreamOutput;

/// How long descendants that keep the streams open may be silent after the process's end.
const QUIET: Duration = Duration::from_secs(1);

/// Starts the process; its streams go on in a task of their own.
pub async fn exec(
    state: &Arc<State>,
    mut stream: Streaming<StreamInput>,
) -> Result<Stream<StreamOutput>, Failure> {
    let start = start_of(&mut stream).await?;
    let container = state.find(&start.container)?;
    let busy = state.sessions.enter(container.id());
    let config = exec_config(start);
    let mut session = state
        .runtime
        .exec(container.id(), config)
        .await
        .map_err(Failure::NotStarted)?;
    let ends = Ends::take(&mut session)?;
    let (client, receiver) = mpsc::channel(STREAM_DEPTH);
    tokio::spawn(serve(session, ends, stream, client, busy));
    Ok(ReceiverStream::new(receiver))
}

fn exec_config(start: StreamStart) -> ExecConfig {
    let given = |text: String| (!text.is_empty()).then_some(text);
    ExecConfig {
        command: start.command,
        tty: start.tty,
        size: start.size.as_ref().filter(|_| start.tty).map(clamp),
        stdin: start.stdin,
        stdout: true,
        stderr: !start.tty,
        env: start.env,
        working_dir: given(start.workdir),
        user: given(start.user),
    }
}

/// The caller's ends of a process's streams.
#[derive(Debug)]
struct Ends {
    stdin: Option<AsyncPipe>,
    stdout: Option<AsyncPipe>,
    stderr: Option<AsyncPipe>,
    terminal: Option<Arc<AsyncPipe>>,
}

impl Ends {
    fn take(session: &mut ExecSession) -> Result<Self, Failure> {
        Ok(Self {
            stdin: session.stdin.take().map(pipe).transpose()?,
            stdout: session.stdout.take().map(pipe).transpose()?,
            stderr: session.stderr.take().map(pipe).transpose()?,
            terminal: session.master.take().map(pipe).transpose()?.map(Arc::new),
        })
    }
}

fn resize(terminal: &AsyncPipe, columns: u16, rows: u16) {
    let size = Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    if let Err(error) = tcsetwinsize(terminal.get(), size) {
        tracing::debug!(%error, "the terminal keeps its size");
    }
}

async fn serve(
    mut session: ExecSession,
    ends: Ends,
    mut stream: Streaming<StreamInput>,
    client: Client,
    busy: Session,
) {
    let Ends {
        stdin,
        stdout,
        stderr,
        terminal,
    } = ends;
    let sink = match (&terminal, stdin) {
        (Some(terminal), _) => Sink::Terminal(Arc::clone(terminal)),
        (None, Some(pipe)) => Sink::Pipe(pipe),
        (None, None) => Sink::None,
    };
    let resized = terminal.clone();
    let input = tokio::spawn(async move {
        take_all(&mut stream, sink, |columns, rows| {
            if let Some(terminal) = &resized {
                resize(terminal, columns, rows);
            }
            std::future::ready(())
        })
        .await;
    });
    let outputs = [
        (stdout.as_ref(), Output::Stdout as fn(Vec<u8>) -> Output),
        (stderr.as_ref(), Output::Stderr),
        (terminal.as_deref(), Output::Stdout),
    ];
    let sources: Vec<Source<'_>> = outputs
        .into_iter()
        .filter_map(|(pipe, wrap)| pipe.map(|pipe| Source { pipe, wrap }))
        .collect();
    let ended = tokio::select! {
        ended = relay(&sources, session.wait(), QUIET, &client) => Some(ended),
        () = client.closed() => None,
    };
    input.abort();
    drop(busy);
    let Some((code, rests)) = ended else {
        // Nobody sees its output any more.
        if let Err(error) = session.kill().await {
            tracing::debug!(error = %error.chain(), "a command without a client runs on");
        }
        return;
    };
    for rest in rests {
        rest.send(&client).await;
    }
    let last = code
        .map(|code| output(Output::ExitCode(code)))
        .map_err(|error| Status::from(Failure::from(error)));
    // A client that went away needs no code.
    drop(client.send(last).await);
}
