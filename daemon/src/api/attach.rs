//! `Attach`: a container's own streams, from its start where the client asks for that.

use std::sync::Arc;
use std::time::Duration;

use joey_proto::api::stream_output::Output;
use joey_proto::api::{StreamInput, StreamOutput};
use joey_runtime::{AttachSession, Container, Detachment};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::fd::AsyncPipe;
use super::sessions::Session;
use super::start_container::start_attached;
use super::status::Failure;
use super::stream::{Client, Sink, Source, clamp, output, pipe, relay, start_of, take_all};
use super::{STREAM_DEPTH, State, Stream};

/// The shim ends the streams of an ended container by itself, as soon as they are read.
const QUIET: Duration = Duration::from_secs(10);

/// Attaches, with a start where it is asked for; the streams go on in a task of their own.
pub async fn attach(
    state: &Arc<State>,
    mut stream: Streaming<StreamInput>,
) -> Result<Stream<StreamOutput>, Failure> {
    let start = start_of(&mut stream).await?;
    let container = state.find(&start.container)?;
    let tty = container.record().config.tty;
    let size = start.size.as_ref().filter(|_| tty).map(clamp);
    let (busy, started) = match start.start {
        true => start_attached(state, &container, start.stdin, size).await?,
        false => (state.sessions.enter(container.id()), None),
    };
    let session = match started {
        Some(session) => session,
        None => {
            let stdin = start.stdin && container.record().config.stdin;
            let attached = state.runtime.attach(container.id(), stdin, true, !tty);
            let attached = attached.await?;
            if let Some((columns, rows)) = size {
                resize(state, container.id(), columns, rows).await;
            }
            attached
        }
    };
    let ends = Ends::take(session)?;
    let (client, receiver) = mpsc::channel(STREAM_DEPTH);
    let state = Arc::clone(state);
    tokio::spawn(serve(state, container, ends, stream, client, busy));
    Ok(ReceiverStream::new(receiver))
}

async fn resize(state: &State, container: &str, columns: u16, rows: u16) {
    if let Err(error) = state.runtime.resize(container, columns, rows).await {
        tracing::debug!(error = %error.chain(), "the terminal keeps its size");
    }
}

/// The daemon's ends of a container's streams.
#[derive(Debug)]
struct Ends {
    stdin: Sink,
    stdout: Option<AsyncPipe>,
    stderr: Option<AsyncPipe>,
    detachment: Option<Detachment>,
}

impl Ends {
    fn take(session: AttachSession) -> Result<Self, Failure> {
        Ok(Self {
            stdin: match session.stdin {
                Some(fd) => Sink::Pipe(pipe(fd)?),
                None => Sink::None,
            },
            stdout: session.stdout.map(pipe).transpose()?,
            stderr: session.stderr.map(pipe).transpose()?,
            detachment: session.detachment,
        })
    }
}

async fn serve(
    state: Arc<State>,
    container: Arc<Container>,
    ends: Ends,
    mut stream: Streaming<StreamInput>,
    client: Client,
    busy: Session,
) {
    let Ends {
        stdin,
        stdout,
        stderr,
        detachment,
    } = ends;
    let input = tokio::spawn({
        let (state, container) = (Arc::clone(&state), Arc::clone(&container));
        async move {
            take_all(&mut stream, stdin, |columns, rows| {
                resize(&state, container.id(), columns, rows)
            })
            .await;
        }
    });
    let outputs = [
        (&stdout, Output::Stdout as fn(Vec<u8>) -> Output),
        (&stderr, Output::Stderr),
    ];
    let sources: Vec<Source<'_>> = outputs
        .into_iter()
        .filter_map(|(pipe, wrap)| pipe.as_ref().map(|pipe| Source { pipe, wrap }))
        .collect();
    let exit = state.runtime.wait_container(container.id());
    let ended = tokio::select! {
        ended = relay(&sources, exit, QUIET, &client) => Ok(ended),
        // The client left; the container runs on.
        () = client.closed() => return input.abort(),
        reason = detached(detachment) => Err(Failure::Detached(reason)),
    };
    input.abort();
    // What is left to send is in memory: the pod may go.
    drop(busy);
    let last = match ended {
        Ok((exit, rests)) => {
            for rest in rests {
                rest.send(&client).await;
            }
            exit.map_err(Failure::from)
        }
        Err(detached) => Err(detached),
    };
    let last = last
        .map(|exit| output(Output::ExitCode(exit.code)))
        .map_err(Status::from);
    // A client that left needs no code.
    drop(client.send(last).await);
}

/// Answers when the shim lets go of the client.
async fn detached(detachment: Option<Detachment>) -> String {
    match detachment {
        Some(mut detachment) => detachment.reason().await,
        None => std::future::pending().await,
    }
}
