//! A pod's shim: its process and its verbs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use joey_proto::shim::{
    Attach, CloseStdin, Delete, Exec, ExecExit, ExecReply, Hello, HelloReply, HoldSockets, Kill,
    Namespaces, ReopenLog, Resize, Shutdown, Start, StartPod, StartReply, State, StateReply, reply,
    request::Call,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::sync::{broadcast, oneshot};

use crate::binary::ShimBinary;
use crate::error::ShimError;
use crate::event::ShimEvent;
use crate::link::{Answer, Link, MAX_FDS, With};

/// The protocol spoken here; a shim may be older.
pub const PROTOCOL: u32 = 3;
/// The first protocol with an attachment in a start.
const ATTACHES_AT_START: u32 = 2;
/// The first protocol with sockets to hold.
const HOLDS_SOCKETS: u32 = 3;

/// For what a shim answers at once.
const QUICK: Duration = Duration::from_secs(10);
/// For a pod's namespaces: a helper in the shim has 30 s.
const POD: Duration = Duration::from_secs(60);
/// For what a worker does: it has 120 s.
const WORKER: Duration = Duration::from_secs(130);

type Result<T> = std::result::Result<T, ShimError>;

/// A connection to the shim of one pod. Its methods may be called from many tasks at once.
#[derive(Debug)]
pub struct Shim {
    link: Link,
    pidfd: OwnedFd,
    hello: HelloReply,
}

/// The outcome of [`Shim::start_pod`].
#[derive(Debug)]
pub struct StartedPod {
    /// The network namespace, when one was made.
    pub network: Option<OwnedFd>,
    /// The init of the shared PID namespace, on the host; 0 without.
    pub init_pid: i32,
}

/// The standard streams of an exec; what is missing is /dev/null. With a terminal all are.
#[derive(Debug, Default)]
pub struct ExecStreams {
    /// Read by the process.
    pub stdin: Option<OwnedFd>,
    /// Written by the process.
    pub stdout: Option<OwnedFd>,
    /// Written by the process.
    pub stderr: Option<OwnedFd>,
}

/// A process in a container.
#[derive(Debug)]
pub struct Executed {
    /// Its end; fails when the connection is lost first.
    pub end: oneshot::Receiver<ExecExit>,
    /// Names it in [`Shim::kill`].
    pub exec_id: u64,
    /// On the host.
    pub pid: i32,
    /// The terminal's master, when one was asked for.
    pub master: Option<OwnedFd>,
}

/// What an attacher wants. The shim makes the descriptors non-blocking: pass ends of pipes, not
/// descriptors that something else reads or writes.
#[derive(Debug, Default)]
pub struct AttachStreams {
    /// Read by the shim, for the container's stdin.
    pub stdin: Option<OwnedFd>,
    /// Written by the shim.
    pub stdout: Option<OwnedFd>,
    /// Written by the shim.
    pub stderr: Option<OwnedFd>,
}

/// An attachment. It ends when the container does, or when its descriptors' other ends are closed.
#[derive(Debug, Clone, Copy)]
pub struct Attached {
    /// Names it in [`ShimEvent::AttachDropped`].
    pub attach_id: u64,
    /// The container has a terminal: everything comes as stdout.
    pub terminal: bool,
}

impl Shim {
    /// Starts a shim for a pod. It lives on without this process.
    ///
    /// # Errors
    /// When it cannot be executed, or does not answer.
    pub async fn spawn(binary: &ShimBinary, pod_id: &str, run_dir: &Path) -> Result<Self> {
        let error = |source| ShimError::Spawn {
            run_dir: run_dir.to_owned(),
            source,
        };
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(error)?;
        ours.set_nonblocking(true).map_err(error)?;
        // The connection is the shim's stdin: no descriptor has to be inheritable, and without a
        // hook between fork and exec the fast path of process creation is taken.
        joey_failpoint::hit("shim.spawn").map_err(error)?;
        let mut child = Command::new(binary.path())
            .arg0("joey-shim")
            .arg(pod_id)
            .arg(run_dir)
            .arg("stdin")
            .env_clear()
            .envs(joey_failpoint::environment())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(error)?;
        let ends = || -> io::Result<_> {
            let pidfd = pidfd_of(child.id())?;
            let clones = (pidfd.try_clone()?, pidfd.try_clone()?);
            Ok((pidfd, clones, UnixStream::from_std(ours)?))
        };
        let (pidfd, (reaped, doomed), stream) = match ends() {
            Ok(ends) => ends,
            Err(source) => {
                // Nobody could find it again. It has not begun: its end does not take long.
                drop(child.kill());
                drop(child.wait());
                return Err(error(source));
            }
        };
        tokio::spawn(reap(child, reaped));
        let greeted = Self::greet(stream, pidfd).await;
        if greeted.is_err()
            && let Err(error) = pidfd_send_signal(&doomed, Signal::KILL)
        {
            tracing::warn!(%error, "a shim that does not answer can't be killed");
        }
        greeted
    }

    /// Finds the shim of a pod again, after this process's restart.
    ///
    /// # Errors
    /// When nobody listens in `run_dir`, or nobody answers.
    pub async fn connect(run_dir: &Path) -> Result<Self> {
        let error = |source| ShimError::Connect {
            run_dir: run_dir.to_owned(),
            source,
        };
        let dir = std::fs::File::open(run_dir).map_err(error)?;
        // A socket's address is short, the folder's path may be long.
        let short = format!(
            "/proc/self/fd/{}/shim.sock",
            std::os::fd::AsRawFd::as_raw_fd(&dir)
        );
        let stream = UnixStream::connect(short).await.map_err(error)?;
        let pid = stream
            .peer_cred()
            .map_err(error)?
            .pid()
            .and_then(|pid| u32::try_from(pid).ok())
            .unwrap_or(0);
        // Its answer to the greeting shows that the pid was still its own.
        let pidfd = pidfd_of(pid).map_err(error)?;
        Self::greet(stream, pidfd).await
    }

    async fn greet(stream: UnixStream, pidfd: OwnedFd) -> Result<Self> {
        let mut shim = Self {
            link: Link::new(stream),
            pidfd,
            hello: HelloReply::default(),
        };
        let call = Call::Hello(Hello { protocol: PROTOCOL });
        shim.hello = match shim.call("Hello", call, Vec::new(), QUICK).await? {
            (reply::Result::Hello(hello), _) => hello,
            _ => return Err(ShimError::Garbled { verb: "Hello" }),
        };
        Ok(shim)
    }

    /// The shim's pid.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.hello.pid
    }

    /// Becomes readable when the shim ends.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Whether the shim's process has ended; it may not be reaped yet.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1..))
    }

    /// The protocol that the shim speaks.
    #[must_use]
    pub fn protocol(&self) -> u32 {
        self.hello.protocol
    }

    /// The version that the shim was built as.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.hello.version
    }

    /// Events from now on. After [`broadcast::error::RecvError::Lagged`] ask for the [`state`](Self::state).
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<ShimEvent> {
        self.link.events()
    }

    /// The connection has ended. To be asked after [`events`](Self::events): what was lost before
    /// sends no event.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.link.is_lost()
    }

    /// Makes the pod's namespaces.
    ///
    /// # Errors
    /// The shim's refusal, or no answer.
    pub async fn start_pod(&self, request: StartPod) -> Result<StartedPod> {
        match self
            .call("StartPod", Call::StartPod(request), Vec::new(), POD)
            .await?
        {
            (reply::Result::StartPod(reply), mut with) => Ok(StartedPod {
                network: with.fds.pop(),
                init_pid: reply.init_pid,
            }),
            _ => Err(ShimError::Garbled { verb: "StartPod" }),
        }
    }

    /// Makes and starts a container; it runs when this returns. After an error it never ran.
    ///
    /// # Errors
    /// The shim's refusal, or no answer.
    pub async fn start(&self, request: Start) -> Result<StartReply> {
        self.start_attached(request, AttachStreams::default()).await
    }

    /// Makes and starts a container whose streams are attached before it runs, so that nothing is
    /// missed; it waits for a reader that is slow. The request's stream flags are set here.
    ///
    /// # Errors
    /// The shim's refusal, or no answer.
    pub async fn start_attached(
        &self,
        mut request: Start,
        streams: AttachStreams,
    ) -> Result<StartReply> {
        request.attach_stdin = streams.stdin.is_some();
        request.attach_stdout = streams.stdout.is_some();
        request.attach_stderr = streams.stderr.is_some();
        let fds = [streams.stdin, streams.stdout, streams.stderr]
            .into_iter()
            .flatten()
            .collect();
        match self
            .call("Start", Call::Start(request), fds, WORKER)
            .await?
        {
            (reply::Result::Start(reply), _) => Ok(reply),
            _ => Err(ShimError::Garbled { verb: "Start" }),
        }
    }

    /// Whether it can do [`start_attached`](Self::start_attached).
    #[must_use]
    pub fn attaches_at_start(&self) -> bool {
        self.protocol() >= ATTACHES_AT_START
    }

    /// Runs a process in a container. The request's stream flags are set here. A process that comes
    /// too late, or whose caller has stopped waiting, is killed.
    ///
    /// # Errors
    /// The shim's refusal, or no answer.
    pub async fn exec(&self, mut request: Exec, streams: ExecStreams) -> Result<Executed> {
        request.stdin = streams.stdin.is_some();
        request.stdout = streams.stdout.is_some();
        request.stderr = streams.stderr.is_some();
        let fds = [streams.stdin, streams.stdout, streams.stderr]
            .into_iter()
            .flatten()
            .collect();
        match self.call("Exec", Call::Exec(request), fds, WORKER).await? {
            (
                reply::Result::Exec(ExecReply { exec_id, pid, .. }),
                With {
                    mut fds,
                    end: Some(end),
                },
            ) => Ok(Executed {
                end,
                exec_id,
                pid,
                master: fds.pop(),
            }),
            _ => Err(ShimError::Garbled { verb: "Exec" }),
        }
    }

    /// Sends a signal to a container's init, to all its processes, or to an exec.
    ///
    /// # Errors
    /// The shim's refusal, or no answer; see [`ShimError::is_not_running`].
    pub async fn kill(&self, request: Kill) -> Result<()> {
        self.done("Kill", Call::Kill(request)).await
    }

    /// Kills a process that [`Shim::exec`] made, without waiting for anything.
    pub fn abandon(&self, exec_id: u64) {
        self.link.end_exec(exec_id);
    }

    /// Attaches to a container's streams.
    ///
    /// # Errors
    /// The shim's refusal, or no answer.
    pub async fn attach(&self, container_id: &str, streams: AttachStreams) -> Result<Attached> {
        let request = Attach {
            container_id: container_id.to_owned(),
            stdin: streams.stdin.is_some(),
            stdout: streams.stdout.is_some(),
            stderr: streams.stderr.is_some(),
        };
        let fds = [streams.stdin, streams.stdout, streams.stderr]
            .into_iter()
            .flatten()
            .collect();
        match self
            .call("Attach", Call::Attach(request), fds, QUICK)
            .await?
        {
            (reply::Result::Attach(reply), _) => Ok(Attached {
                attach_id: reply.attach_id,
                terminal: reply.terminal,
            }),
            _ => Err(ShimError::Garbled { verb: "Attach" }),
        }
    }

    /// Sets the size of a container's terminal.
    ///
    /// # Errors
    /// The shim's refusal, or no answer.
    pub async fn resize(&self, container_id: &str, columns: u32, rows: u32) -> Result<()> {
        let container_id = container_id.to_owned();
        self.done(
            "Resize",
            Call::Resize(Resize {
                container_id,
                columns,
                rows,
            }),
        )
        .await
    }

    /// Goes on in a new log file; it exists when this returns.
    ///
    /// # Errors
    /// The shim's refusal, or no answer.
    pub async fn reopen_log(&self, container_id: &str) -> Result<()> {
        let container_id = container_id.to_owned();
        self.done("ReopenLog", Call::ReopenLog(ReopenLog { container_id }))
            .await
    }

    /// Closes a container's stdin, once everything that waits is written.
    ///
    /// # Errors
    /// The shim's refusal, or no answer.
    pub async fn close_stdin(&self, container_id: &str) -> Result<()> {
        let container_id = container_id.to_owned();
        self.done("CloseStdin", Call::CloseStdin(CloseStdin { container_id }))
            .await
    }

    /// Every container that the shim knows.
    ///
    /// # Errors
    /// No answer.
    pub async fn state(&self) -> Result<StateReply> {
        match self
            .call("State", Call::State(State {}), Vec::new(), QUICK)
            .await?
        {
            (reply::Result::State(reply), _) => Ok(reply),
            _ => Err(ShimError::Garbled { verb: "State" }),
        }
    }

    /// Forgets an ended container and its exit record; one that is unknown is forgotten already.
    ///
    /// # Errors
    /// The shim's refusal, or no answer.
    pub async fn delete(&self, container_id: &str) -> Result<()> {
        let container_id = container_id.to_owned();
        self.done("Delete", Call::Delete(Delete { container_id }))
            .await
    }

    /// Ends the shim, with its containers if `force` is set.
    ///
    /// # Errors
    /// The shim's refusal, or no answer.
    pub async fn shutdown(&self, force: bool) -> Result<()> {
        self.done("Shutdown", Call::Shutdown(Shutdown { force }))
            .await
    }

    /// The pod's network namespace, when it has its own.
    ///
    /// # Errors
    /// No answer.
    pub async fn network_namespace(&self) -> Result<Option<OwnedFd>> {
        match self
            .call(
                "Namespaces",
                Call::Namespaces(Namespaces {}),
                Vec::new(),
                QUICK,
            )
            .await?
        {
            (reply::Result::Namespaces(_), mut with) => Ok(with.fds.pop()),
            _ => Err(ShimError::Garbled { verb: "Namespaces" }),
        }
    }

    /// Whether the shim knows [`Shim::hold_sockets`].
    #[must_use]
    pub fn can_hold_sockets(&self) -> bool {
        self.protocol() >= HOLDS_SOCKETS
    }

    /// How many sockets the shim held when it was greeted.
    #[must_use]
    pub fn held_sockets(&self) -> u32 {
        self.hello.held_sockets
    }

    /// Has the shim keep sockets open as long as it lives.
    ///
    /// # Errors
    /// The shim's refusal, or no answer. It may hold some of them nevertheless.
    pub async fn hold_sockets(&self, sockets: Vec<OwnedFd>) -> Result<()> {
        let mut sockets = sockets.into_iter();
        loop {
            let some: Vec<OwnedFd> = sockets.by_ref().take(MAX_FDS).collect();
            if some.is_empty() {
                return Ok(());
            }
            let count = u32::try_from(some.len()).unwrap_or(u32::MAX);
            let call = Call::HoldSockets(HoldSockets { count });
            self.done_with("HoldSockets", call, some).await?;
        }
    }

    async fn done(&self, verb: &'static str, call: Call) -> Result<()> {
        self.done_with(verb, call, Vec::new()).await
    }

    async fn done_with(&self, verb: &'static str, call: Call, fds: Vec<OwnedFd>) -> Result<()> {
        match self.call(verb, call, fds, QUICK).await? {
            (reply::Result::Done(_), _) => Ok(()),
            _ => Err(ShimError::Garbled { verb }),
        }
    }

    async fn call(
        &self,
        verb: &'static str,
        call: Call,
        fds: Vec<OwnedFd>,
        after: Duration,
    ) -> Result<Answer> {
        joey_failpoint::hit("shim.call").map_err(|_| ShimError::Lost { verb })?;
        let answer = tokio::time::timeout(after, self.link.call(call, fds)).await;
        joey_failpoint::hit("shim.answered").map_err(|_| ShimError::Lost { verb })?;
        match answer
            .map_err(|_| ShimError::TimedOut { verb, after })?
            .ok_or(ShimError::Lost { verb })?
        {
            (reply::Result::Error(error), _) => Err(ShimError::Refused {
                verb,
                errno: error.errno,
                message: error.message,
            }),
            answer => Ok(answer),
        }
    }
}

fn pidfd_of(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(io::ErrorKind::NotFound)?;
    pidfd_open(pid, PidfdFlags::empty()).map_err(|error| match error {
        // What kernels before 6.14 say of a process that is just being reaped.
        Errno::INVAL => Errno::SRCH.into(),
        other => other.into(),
    })
}

/// Waits for the shim's end, so that it does not stay a zombie.
async fn reap(mut child: Child, pidfd: OwnedFd) {
    // SAFETY: the descriptor is owned by the `AsyncFd` and open until it is dropped.
    let watched = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
    let ended = match watched {
        Ok(pidfd) => pidfd.readable().await.is_ok(),
        Err(error) => {
            tracing::warn!(%error, pid = child.id(), "a shim cannot be watched");
            false
        }
    };
    if ended && let Err(error) = child.wait() {
        tracing::warn!(%error, pid = child.id(), "a shim cannot be reaped");
    }
}
