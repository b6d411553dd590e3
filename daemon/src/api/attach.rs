//! `Attach`: a container's own streams, from its start where the client asks for that.
//!
//! Without a terminal the output comes from the log, which has every byte in order; a terminal's
//! output is attached to, since a prompt without a newline is not logged until its line ends.

use std::sync::Arc;
use std::time::Duration;

use joey_proto::api::stream_output::Output;
use joey_proto::api::{LogChunk, StreamInput, StreamOutput, StreamStart};
use joey_runtime::{AttachSession, Container};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::logs::{Filter, Reader};
use super::sessions::Session;
use super::status::Failure;
use super::stream::{Client, Sink, clamp, output, pipe, send_all, start_of, take_all};
use super::{STREAM_DEPTH, State, Stream};

/// How long output may still come after the container's end.
const DRAIN: Duration = Duration::from_secs(1);

/// Attaches, after a start where it is asked for; the streams go on in a task of their own.
pub async fn attach(
    state: &Arc<State>,
    mut stream: Streaming<StreamInput>,
) -> Result<Stream<StreamOutput>, Failure> {
    let start = start_of(&mut stream).await?;
    let container = state.find(&start.container)?;
    let busy = state.sessions.enter(container.id());
    if start.start {
        state.start(&container).await?;
    }
    let tty = container.record().config.tty;
    let from_log = start.start && !tty;
    let attached = connect(state, &container, &start, from_log).await?;
    if let Some(size) = start.size.filter(|_| tty) {
        let (columns, rows) = clamp(&size);
        resize(state, container.id(), columns, rows).await;
    }
    let (client, receiver) = mpsc::channel(STREAM_DEPTH);
    let task = Attached {
        state: Arc::clone(state),
        container,
        from_log,
        started: start.start,
        _busy: busy,
    };
    tokio::spawn(task.serve(attached, stream, client));
    Ok(ReceiverStream::new(receiver))
}

/// None where the container ended before anyone could attach.
async fn connect(
    state: &State,
    container: &Container,
    start: &StreamStart,
    from_log: bool,
) -> Result<Option<AttachSession>, Failure> {
    let record = container.record();
    let stdin = start.stdin && record.config.stdin;
    if from_log && !stdin {
        return Ok(None);
    }
    let (stdout, stderr) = (!from_log, !from_log && !record.config.tty);
    match state
        .runtime
        .attach(container.id(), stdin, stdout, stderr)
        .await
    {
        Ok(session) => Ok(Some(session)),
        Err(_) if start.start && container.record().exit.is_some() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn resize(state: &State, container: &str, columns: u16, rows: u16) {
    if let Err(error) = state.runtime.resize(container, columns, rows).await {
        tracing::debug!(error = %error.chain(), "the terminal keeps its size");
    }
}

struct Attached {
    state: Arc<State>,
    container: Arc<Container>,
    from_log: bool,
    started: bool,
    _busy: Session,
}

impl Attached {
    async fn serve(
        self,
        attached: Option<AttachSession>,
        mut stream: Streaming<StreamInput>,
        client: Client,
    ) {
        let (stdin, stdout, stderr) = match attached {
            Some(session) => (session.stdin, session.stdout, session.stderr),
            None => (None, None, None),
        };
        let sink = stdin
            .and_then(|fd| pipe(fd).ok())
            .map_or(Sink::None, Sink::Pipe);
        let (state, id) = (Arc::clone(&self.state), self.container.id().to_owned());
        let input = tokio::spawn(async move {
            take_all(&mut stream, sink, |columns, rows| {
                resize(&state, &id, columns, rows)
            })
            .await;
        });
        let sent = tokio::select! {
            sent = self.outputs(stdout, stderr, &client) => sent,
            // The client left; the container runs on.
            () = client.closed() => Ok(()),
        };
        input.abort();
        let last = match sent {
            Err(failure) => Err(Status::from(failure)),
            Ok(()) if client.is_closed() => return,
            Ok(()) => match self.state.runtime.wait_container(self.container.id()).await {
                Ok(exit) => Ok(output(Output::ExitCode(exit.code))),
                Err(error) => Err(Status::from(Failure::from(error))),
            },
        };
        drop(client.send(last).await);
    }

    async fn outputs(
        &self,
        stdout: Option<std::os::fd::OwnedFd>,
        stderr: Option<std::os::fd::OwnedFd>,
        client: &Client,
    ) -> Result<(), Failure> {
        if self.from_log {
            return self.send_log(client, true).await;
        }
        let missed = stdout.is_none() && stderr.is_none();
        let stdout = stdout.map(pipe).transpose()?;
        let stderr = stderr.map(pipe).transpose()?;
        let (id, runtime) = (self.container.id(), &self.state.runtime);
        let streams = async {
            tokio::join!(
                send_all(stdout.as_ref(), Output::Stdout, client),
                send_all(stderr.as_ref(), Output::Stderr, client),
            )
        };
        let mut streams = std::pin::pin!(streams);
        tokio::select! {
            _ = &mut streams => {}
            _ = runtime.wait_container(id) => {
                // Descendants may keep the streams open.
                drop(tokio::time::timeout(DRAIN, &mut streams).await);
            }
        }
        if missed && self.started {
            return self.send_log(client, false).await;
        }
        Ok(())
    }

    async fn send_log(&self, client: &Client, follow: bool) -> Result<(), Failure> {
        let Some(path) = self.container.record().config.log_path.clone() else {
            return Ok(());
        };
        let reader = Reader {
            state: Arc::clone(&self.state),
            container: self.container.id().to_owned(),
            path,
            filter: Filter::all(),
            follow,
            tail: None,
            _busy: self.state.sessions.enter(self.container.id()),
        };
        let send = |LogChunk { stderr, data }| async move {
            let wrapped = if stderr {
                Output::Stderr(data)
            } else {
                Output::Stdout(data)
            };
            client.send(Ok(output(wrapped))).await.is_ok()
        };
        reader.run(send).await
    }
}
