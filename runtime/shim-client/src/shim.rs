//! The calls of a shim.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use joey_proto::shim::{
    Attach, AttachReply, CloseStdin, Delete, Exec, Hello, Kill, ReopenLog, Resize, Shutdown, Start,
    StartPod, StartPodReply, StartReply, State, StateReply, reply::Result as ReplyKind,
    request::Call as CallKind,
};
use tokio::net::UnixStream;

use crate::connection::{Connection, Events};
use crate::error::CallError;
use crate::exec::ExecHandle;

/// The newest protocol this daemon speaks.
const PROTOCOL: u32 = 1;
/// Calls that the shim's loop answers by itself.
const QUICK: Duration = Duration::from_secs(10);
/// Calls that a worker of the shim carries out.
const SLOW: Duration = Duration::from_secs(130);

/// A connected shim.
#[derive(Debug)]
pub struct Shim {
    connection: Arc<Connection>,
    pid: i32,
}

macro_rules! expect {
    ($reply:expr, $kind:ident, $call:expr) => {
        match $reply {
            ReplyKind::$kind(reply) => Ok(reply),
            _ => Err(CallError::Confused { call: $call }),
        }
    };
}

pub(crate) async fn kill(connection: &Connection, request: Kill) -> Result<(), CallError> {
    let (reply, _) = connection
        .call("Kill", CallKind::Kill(request), Vec::new(), QUICK)
        .await?;
    expect!(reply, Done, "Kill").map(drop)
}

impl Shim {
    /// Connects to the shim of a pod by its run folder.
    ///
    /// # Errors
    /// Nobody listens; the protocols don't match.
    pub async fn connect(run_folder: &Path) -> Result<Self, CallError> {
        let path = run_folder.join("shim.sock");
        let socket = UnixStream::connect(&path)
            .await
            .map_err(|source| CallError::Connect {
                path: path.clone(),
                source,
            })?;
        Self::greet(socket).await
    }

    pub(crate) async fn greet(socket: UnixStream) -> Result<Self, CallError> {
        let connection = Connection::new(socket);
        let hello = CallKind::Hello(Hello { protocol: PROTOCOL });
        let (reply, _) = connection.call("Hello", hello, Vec::new(), QUICK).await?;
        let hello = expect!(reply, Hello, "Hello")?;
        if hello.protocol > PROTOCOL {
            return Err(CallError::Protocol(hello.protocol));
        }
        Ok(Self {
            connection,
            pid: hello.pid,
        })
    }

    /// The shim's process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The events of this connection; the first caller gets them.
    #[must_use]
    pub fn events(&self) -> Events {
        self.connection.events()
    }

    /// Makes the pod's namespaces; the network's descriptor comes back where one was made.
    ///
    /// # Errors
    /// The step that failed.
    pub async fn start_pod(
        &self,
        request: StartPod,
    ) -> Result<(StartPodReply, Option<OwnedFd>), CallError> {
        let call = CallKind::StartPod(request);
        let (reply, fd) = self
            .connection
            .call("StartPod", call, Vec::new(), SLOW)
            .await?;
        Ok((expect!(reply, StartPod, "StartPod")?, fd))
    }

    /// Creates and starts a container.
    ///
    /// # Errors
    /// The step that failed; the container never ran then.
    pub async fn start(&self, request: Start) -> Result<StartReply, CallError> {
        let call = CallKind::Start(request);
        let (reply, _) = self
            .connection
            .call("Start", call, Vec::new(), SLOW)
            .await?;
        expect!(reply, Start, "Start")
    }

    /// Runs a process in a container. With a terminal its master comes back.
    ///
    /// # Errors
    /// The step that failed; the process never ran then.
    pub async fn exec(
        &self,
        request: Exec,
        fds: Vec<OwnedFd>,
    ) -> Result<(ExecHandle, Option<OwnedFd>), CallError> {
        let container_id = request.container_id.clone();
        let call = CallKind::Exec(request);
        let (reply, master) = self.connection.call("Exec", call, fds, SLOW).await?;
        let reply = expect!(reply, Exec, "Exec")?;
        let handle = ExecHandle {
            exited: self.connection.exec_exit(reply.exec_id),
            connection: Arc::clone(&self.connection),
            container_id,
            exec_id: reply.exec_id,
        };
        Ok((handle, master))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// No such process.
    pub async fn kill(&self, request: Kill) -> Result<(), CallError> {
        kill(&self.connection, request).await
    }

    /// Attaches descriptors to a container's streams.
    ///
    /// # Errors
    /// The container does not run.
    pub async fn attach(
        &self,
        request: Attach,
        fds: Vec<OwnedFd>,
    ) -> Result<AttachReply, CallError> {
        let call = CallKind::Attach(request);
        let (reply, _) = self.connection.call("Attach", call, fds, QUICK).await?;
        expect!(reply, Attach, "Attach")
    }

    /// Sets the size of a container's terminal.
    ///
    /// # Errors
    /// The container has none.
    pub async fn resize(&self, request: Resize) -> Result<(), CallError> {
        self.done("Resize", CallKind::Resize(request), QUICK).await
    }

    /// Opens a container's log anew.
    ///
    /// # Errors
    /// The file can't be made; the old one stays in use.
    pub async fn reopen_log(&self, request: ReopenLog) -> Result<(), CallError> {
        self.done("ReopenLog", CallKind::ReopenLog(request), QUICK)
            .await
    }

    /// Closes a container's standard input.
    ///
    /// # Errors
    /// The container does not run.
    pub async fn close_stdin(&self, request: CloseStdin) -> Result<(), CallError> {
        self.done("CloseStdin", CallKind::CloseStdin(request), QUICK)
            .await
    }

    /// Every container the shim knows.
    ///
    /// # Errors
    /// The shim is gone.
    pub async fn state(&self) -> Result<StateReply, CallError> {
        let call = CallKind::State(State {});
        let (reply, _) = self
            .connection
            .call("State", call, Vec::new(), QUICK)
            .await?;
        expect!(reply, State, "State")
    }

    /// Forgets an ended container.
    ///
    /// # Errors
    /// It still runs.
    pub async fn delete(&self, request: Delete) -> Result<(), CallError> {
        self.done("Delete", CallKind::Delete(request), QUICK).await
    }

    /// Ends the shim; with `force` also where containers run, which it kills.
    ///
    /// # Errors
    /// A container runs; the shim is gone already.
    pub async fn shutdown(&self, force: bool) -> Result<(), CallError> {
        self.done("Shutdown", CallKind::Shutdown(Shutdown { force }), QUICK)
            .await
    }

    async fn done(
        &self,
        name: &'static str,
        call: CallKind,
        limit: Duration,
    ) -> Result<(), CallError> {
        let (reply, _) = self.connection.call(name, call, Vec::new(), limit).await?;
        expect!(reply, Done, name).map(drop)
    }
}
