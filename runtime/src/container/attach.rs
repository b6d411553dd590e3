//! Attaches to a container's own streams, its log and its network.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use joey_shim_client::{AttachStreams, Shim, ShimEvent};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::exec::pipe;
use crate::config::netns_path;
use crate::error::{Error, Result};
use crate::model::{ContainerState, NamespaceMode, PodState};
use crate::objects::Container;
use crate::runtime::Runtime;

/// To a port inside a pod.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Streams of a container's init.
#[derive(Debug)]
pub struct AttachSession {
    /// Written by the caller.
    pub stdin: Option<OwnedFd>,
    /// Read by the caller.
    pub stdout: Option<OwnedFd>,
    /// Read by the caller.
    pub stderr: Option<OwnedFd>,
    /// The container has a terminal.
    pub tty: bool,
    /// None: the container waits for this client.
    pub detachment: Option<Detachment>,
}

/// Tells when the shim lets go of a client that reads too slowly.
#[derive(Debug)]
pub struct Detachment {
    attach_id: u64,
    events: Receiver<ShimEvent>,
}

impl Detachment {
    /// Answers with the reason when it happens.
    pub async fn reason(&mut self) -> String {
        loop {
            match self.events.recv().await {
                Ok(ShimEvent::AttachDropped(dropped)) if dropped.attach_id == self.attach_id => {
                    return dropped.reason;
                }
                // With the shim everything ends.
                Ok(ShimEvent::Lost) | Err(RecvError::Closed) => std::future::pending().await,
                Ok(_) | Err(RecvError::Lagged(_)) => {}
            }
        }
    }
}

impl Runtime {
    /// Attaches to a running container.
    ///
    /// # Errors
    /// [`Error::WrongState`] unless it runs.
    pub async fn attach(
        &self,
        id: &str,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    ) -> Result<AttachSession> {
        let (container, shim) = self.running(id, "attaching")?;
        let tty = container.record().config.tty;
        let (mut session, theirs) = session(tty, stdin, stdout, stderr)?;
        // Before the call: nothing is missed.
        let events = shim.events();
        let attached = shim.attach(container.id(), theirs).await;
        let attached = attached.map_err(|e| Error::step("attach to the container", e))?;
        session.detachment = Some(Detachment {
            attach_id: attached.attach_id,
            events,
        });
        Ok(session)
    }

    /// Attaches to a container that was started without; one that has ended meanwhile shows
    /// nothing.
    pub(super) async fn attach_late(&self, id: &str, theirs: AttachStreams) -> Result<()> {
        let (container, shim) = match self.running(id, "attaching") {
            Err(Error::WrongState { .. }) => return Ok(()),
            running => running?,
        };
        match shim.attach(container.id(), theirs).await {
            Err(error) if error.is_not_running() => Ok(()),
            attached => attached
                .map(drop)
                .map_err(|e| Error::step("attach to the container", e)),
        }
    }

    /// Sets the size of a container's terminal.
    ///
    /// # Errors
    /// [`Error::WrongState`] unless it runs.
    pub async fn resize(&self, id: &str, columns: u16, rows: u16) -> Result<()> {
        let (container, shim) = self.running(id, "resizing")?;
        shim.resize(container.id(), columns.into(), rows.into())
            .await
            .map_err(|e| Error::step("resize the terminal", e))
    }

    /// Opens a running container's log file anew, after a rotation.
    ///
    /// # Errors
    /// [`Error::WrongState`] unless it runs; the file can't be made.
    pub async fn reopen_log(&self, id: &str) -> Result<()> {
        let (container, shim) = self.running(id, "reopening the log")?;
        shim.reopen_log(container.id())
            .await
            .map_err(|e| Error::step(reopen_step(&container), e))
    }

    fn running(
        &self,
        id: &str,
        operation: &'static str,
    ) -> Result<(std::sync::Arc<Container>, std::sync::Arc<Shim>)> {
        let container = self.container(id)?;
        let shim = match container.state() {
            ContainerState::Running => self.pod_of(&container.record())?.shim(),
            _ => None,
        };
        let shim = shim.ok_or_else(|| Error::WrongState {
            kind: "container",
            id: container.id().to_owned(),
            state: "not running",
            operation,
            needs: "running",
        })?;
        Ok((container, shim))
    }

    /// Connects to a port of a pod on its loopback: 127.0.0.1, then `::1`.
    ///
    /// # Errors
    /// [`Error::WrongState`] unless the pod is ready; nobody listens.
    pub async fn connect_port(&self, pod_id: &str, port: u16) -> Result<tokio::net::TcpStream> {
        let pod = self.pod(pod_id)?;
        let record = pod.record();
        if record.state != PodState::Ready {
            return Err(Error::WrongState {
                kind: "pod sandbox",
                id: record.id.clone(),
                state: "not ready",
                operation: "forwarding a port",
                needs: "ready",
            });
        }
        let namespace =
            (record.config.network != NamespaceMode::Node).then(|| netns_path(&record.id));
        let (sender, receiver) = tokio::sync::oneshot::channel();
        // A thread of its own: a namespace is a thread's, and this one ends with it.
        std::thread::Builder::new()
            .name("port-forward".into())
            .spawn(move || drop(sender.send(connect_in(namespace, port))))
            .map_err(|e| Error::step("start a thread", e))?;
        let stream = receiver.await.map_err(|_| Error::Aborted)??;
        stream
            .set_nonblocking(true)
            .map_err(|e| Error::step("set up the connection", e))?;
        tokio::net::TcpStream::from_std(stream).map_err(|e| Error::step("set up the connection", e))
    }
}

/// Pipes for an attachment: the caller's ends and the shim's.
pub(super) fn session(
    tty: bool,
    stdin: bool,
    stdout: bool,
    stderr: bool,
) -> Result<(AttachSession, AttachStreams)> {
    let mut ours = AttachSession {
        stdin: None,
        stdout: None,
        stderr: None,
        tty,
        detachment: None,
    };
    let mut theirs = AttachStreams::default();
    if stdin {
        let (read, write) = pipe()?;
        theirs.stdin = Some(read);
        ours.stdin = Some(write);
    }
    for (wanted, ours, theirs) in [
        (stdout, &mut ours.stdout, &mut theirs.stdout),
        (stderr, &mut ours.stderr, &mut theirs.stderr),
    ] {
        if wanted {
            let (read, write) = pipe()?;
            *theirs = Some(write);
            *ours = Some(read);
        }
    }
    Ok((ours, theirs))
}

fn connect_in(namespace: Option<PathBuf>, port: u16) -> Result<std::net::TcpStream> {
    if let Some(path) = namespace {
        let file = std::fs::File::open(&path)
            .map_err(|e| Error::file("open the network namespace", &path, e))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|e| Error::step("enter the pod's network namespace", e))?;
    }
    let connect =
        |address: SocketAddr| std::net::TcpStream::connect_timeout(&address, CONNECT_TIMEOUT);
    connect((Ipv4Addr::LOCALHOST, port).into())
        .or_else(|_| connect((Ipv6Addr::LOCALHOST, port).into()))
        .map_err(|e| Error::step(format!("connect to port {port} of the pod"), e))
}

fn reopen_step(container: &Container) -> String {
    let record = container.record();
    let path = record.config.log_path.clone().unwrap_or_default();
    format!(
        "reopen the log {} of container {}",
        path.display(),
        record.id
    )
}
