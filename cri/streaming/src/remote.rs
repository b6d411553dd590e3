//! Exec and attach: gathers the client's streams, runs the request, tells the outcome.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use crate::api::{AttachRequest, BoxedReader, BoxedWriter, ExecRequest, SessionIo, Streams};
use crate::negotiate::{Agreed, Transport, Version};
use crate::outbound::{Message, StreamWriter};
use crate::pipe::StreamReader;
use crate::resize;
use crate::session::{Connection, Session};
use crate::spdy::{self, NewStream};
use crate::status::Outcome;
use crate::websocket::{self, Codec};

/// How long an attached container may take what a client sent before it left.
const GRACE: Duration = Duration::from_secs(1);
/// Terminal sizes that may wait.
const SIZES: usize = 4;

/// Exec or attach.
#[derive(Debug)]
pub(crate) enum Remote {
    Exec(ExecRequest),
    Attach(AttachRequest),
}

/// The streams of a request.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    resize: bool,
}

impl Wanted {
    fn of(remote: &Remote, agreed: Agreed<Version>) -> Self {
        let (stdin, stdout, stderr, tty) = match remote {
            Remote::Exec(exec) => (exec.stdin, exec.stdout, exec.stderr, exec.tty),
            Remote::Attach(attach) => (attach.stdin, attach.stdout, attach.stderr, attach.tty),
        };
        // WebSocket clients have the channel in every version.
        let can_resize = agreed.transport != Transport::Spdy || agreed.protocol >= Version::V3;
        Self {
            stdin,
            stdout,
            stderr,
            resize: tty && can_resize,
        }
    }
}

/// Time limits of a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) idle: Duration,
    pub(crate) creation: Duration,
}

/// The client's streams, by what they are for.
#[derive(Debug, Default)]
struct Ends {
    stdin: Option<StreamReader>,
    stdout: Option<StreamWriter>,
    stderr: Option<StreamWriter>,
    resize: Option<StreamReader>,
    error: u32,
    /// The other ways of these streams: they end with the session.
    held: Vec<StreamWriter>,
    /// Every stream's number.
    ids: Vec<u32>,
}

/// Serves one exec or attach on an upgraded connection.
pub(crate) async fn serve(
    connection: Connection,
    agreed: Agreed<Version>,
    remote: Remote,
    streams: Arc<dyn Streams>,
    limits: Limits,
) {
    let wanted = Wanted::of(&remote, agreed);
    let opened = match agreed.transport {
        Transport::Spdy => open_spdy(connection, wanted, limits).await,
        Transport::WebSocket(codec) => open_websocket(connection, codec, wanted, limits).await,
    };
    let Some((session, mut ends)) = opened else {
        return;
    };
    let (sizes, resize) = mpsc::channel(SIZES);
    let resizer = ends
        .resize
        .take()
        .map(|stream| tokio::spawn(resize::forward(stream, sizes)));
    let io = SessionIo {
        stdin: ends.stdin.take().map(|end| Box::new(end) as BoxedReader),
        stdout: ends.stdout.take().map(|end| Box::new(end) as BoxedWriter),
        stderr: ends.stderr.take().map(|end| Box::new(end) as BoxedWriter),
        resize,
        closed: session.closed().clone(),
    };
    let outcome = run(remote, io, &session, streams.as_ref()).await;
    finish(session, ends, &outcome, agreed.protocol >= Version::V4).await;
    if let Some(resizer) = resizer {
        resizer.abort();
    }
}

async fn run(remote: Remote, io: SessionIo, session: &Session, streams: &dyn Streams) -> Outcome {
    let task = async {
        match remote {
            Remote::Exec(request) => Outcome::of_exec(streams.exec(request, io).await),
            Remote::Attach(request) => {
                tokio::select! {
                    result = streams.attach(request, io) => Outcome::of_attach(result),
                    // A detached client must not hold on to a silent container.
                    () = gone(session) => Outcome::Success,
                }
            }
        }
    };
    AssertUnwindSafe(task)
        .catch_unwind()
        .await
        .unwrap_or_else(|_| {
            tracing::error!("streaming session panicked");
            Outcome::Failed("the runtime failed".to_owned())
        })
}

/// Ends a moment after the client left.
pub(crate) async fn gone(session: &Session) {
    session.closed().cancelled().await;
    sleep(GRACE).await;
}

async fn finish(session: Session, ends: Ends, outcome: &Outcome, structured: bool) {
    let outbox = session.outbox();
    let text = outcome.encode(structured);
    let mut messages = Vec::new();
    if !text.is_empty() {
        messages.push(Message::Data(ends.error, text.into()));
    }
    messages.push(Message::Fin(ends.error));
    messages.extend(ends.ids.iter().map(|id| Message::Fin(*id)));
    for message in messages {
        if outbox.send(message).await.is_err() {
            tracing::debug!(?outcome, "streaming client left before the outcome");
            return;
        }
    }
    session.close().await;
}

async fn open_spdy(
    connection: Connection,
    wanted: Wanted,
    limits: Limits,
) -> Option<(Session, Ends)> {
    let (session, mut incoming) = spdy::start(connection, limits.idle);
    let deadline = Instant::now() + limits.creation;
    let mut ends = Ends::default();
    let mut error = None;
    loop {
        let complete = error.is_some()
            && wanted.stdin == ends.stdin.is_some()
            && wanted.stdout == ends.stdout.is_some()
            && wanted.stderr == ends.stderr.is_some()
            && wanted.resize == ends.resize.is_some();
        if complete {
            ends.error = error?;
            return Some((session, ends));
        }
        let Ok(next) = timeout_at(deadline, incoming.recv()).await else {
            tracing::info!("streaming client did not create its streams in time");
            session.close().await;
            return None;
        };
        let stream = next?;
        let id = stream.id;
        let reply = match take(stream, wanted, &mut ends, &mut error) {
            Ok(()) => Message::Reply(id),
            Err(Unfit) => Message::Reset(id, spdy::reset::CANCEL),
        };
        if session.outbox().send(reply).await.is_err() {
            return None;
        }
    }
}

/// A stream of no known type, or a second one of its type.
struct Unfit;

fn take(
    stream: NewStream,
    wanted: Wanted,
    ends: &mut Ends,
    error: &mut Option<u32>,
) -> Result<(), Unfit> {
    let NewStream {
        id,
        headers,
        reader,
        writer,
    } = stream;
    let kind = headers.get("streamtype").unwrap_or_default();
    if ends.ids.contains(&id) {
        return Err(Unfit);
    }
    match kind {
        "error" if error.is_none() => {
            *error = Some(id);
            ends.held.push(writer);
        }
        "stdin" if wanted.stdin && ends.stdin.is_none() => {
            ends.stdin = Some(reader);
            ends.held.push(writer);
        }
        "resize" if wanted.resize && ends.resize.is_none() => {
            ends.resize = Some(reader);
            ends.held.push(writer);
        }
        "stdout" if wanted.stdout && ends.stdout.is_none() => ends.stdout = Some(writer),
        "stderr" if wanted.stderr && ends.stderr.is_none() => ends.stderr = Some(writer),
        // Not asked for in the request, but clients may expect an answer: it stays silent.
        "stdin" if !wanted.stdin => ends.held.push(writer),
        "resize" if !wanted.resize => ends.held.push(writer),
        "stdout" if !wanted.stdout => ends.held.push(writer),
        "stderr" if !wanted.stderr => ends.held.push(writer),
        _ => return Err(Unfit),
    }
    ends.ids.push(id);
    Ok(())
}

async fn open_websocket(
    connection: Connection,
    codec: Codec,
    wanted: Wanted,
    limits: Limits,
) -> Option<(Session, Ends)> {
    const STDOUT: u32 = 1;
    const STDERR: u32 = 2;
    const ERROR: u32 = 3;
    let (session, channels) = websocket::start(connection, limits.idle, codec, 5);
    let Ok([stdin, stdout, stderr, _, resize]) = <[_; 5]>::try_from(channels) else {
        return None;
    };
    // Clients take a first, empty message on the lowest channel they read as the start.
    let first = match wanted {
        Wanted { stdout: true, .. } => STDOUT,
        Wanted { stderr: true, .. } => STDERR,
        _ => ERROR,
    };
    session
        .outbox()
        .send(Message::Data(first, bytes::Bytes::new()))
        .await
        .ok()?;
    let ends = Ends {
        stdin: wanted.stdin.then_some(stdin.reader),
        stdout: wanted.stdout.then_some(stdout.writer),
        stderr: wanted.stderr.then_some(stderr.writer),
        resize: wanted.resize.then_some(resize.reader),
        error: ERROR,
        ..Ends::default()
    };
    Some((session, ends))
}
