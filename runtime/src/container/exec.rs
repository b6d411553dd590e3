//! Runs further processes in a container.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use joey_proto::shim::{Exec, ExecExit, Kill};
use joey_shim_client::{ExecStreams, Shim, ShimError};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{Instrument as _, debug_span};

use super::stop::LONGEST_GRACE;
use crate::error::{Error, Result};
use crate::model::ContainerState;
use crate::oci;
use crate::runtime::Runtime;
use crate::wire::texts;

/// Of a synchronous exec's output: the whole response stays under gRPC's 16 MiB.
const MAX_OUTPUT_BYTES: usize = (16 << 20) - (64 << 10);
/// A pipe holds no more; what follows comes from a process that was left behind.
const MAX_PIPE_BYTES: usize = 1 << 20;
/// How long a killed exec may take to be reaped.
const KILL_GRACE: Duration = Duration::from_secs(5);
const SIGKILL: u32 = 9;

/// A process to run in a container.
#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_excessive_bools)]
pub struct ExecConfig {
    /// Program and arguments.
    pub command: Vec<String>,
    /// With a terminal; then stderr is part of stdout.
    pub tty: bool,
    /// The terminal's columns and rows from the start on.
    pub size: Option<(u16, u16)>,
    /// Standard input is given.
    pub stdin: bool,
    /// Standard output is read.
    pub stdout: bool,
    /// Standard error is read.
    pub stderr: bool,
    /// `KEY=value`, on top of the container's.
    pub env: Vec<String>,
    /// None: the container's.
    pub working_dir: Option<String>,
    /// `user[:group]`; None: the container's.
    pub user: Option<String>,
}

/// A process that runs in a container. Dropped before its end it is killed.
#[derive(Debug)]
pub struct ExecSession {
    /// Written by the caller.
    pub stdin: Option<OwnedFd>,
    /// Read by the caller.
    pub stdout: Option<OwnedFd>,
    /// Read by the caller.
    pub stderr: Option<OwnedFd>,
    /// The terminal's master, instead of the three.
    pub master: Option<OwnedFd>,
    container_id: String,
    exec_id: u64,
    code: Option<i32>,
    shim: Arc<Shim>,
    end: oneshot::Receiver<ExecExit>,
}

impl Drop for ExecSession {
    fn drop(&mut self) {
        if self.code.is_none() {
            self.shim.abandon(self.exec_id);
        }
    }
}

impl ExecSession {
    /// The process's exit code, 128 + the signal where one ended it.
    ///
    /// # Errors
    /// When the pod's shim ended.
    pub async fn wait(&mut self) -> Result<i32> {
        if let Some(code) = self.code {
            return Ok(code);
        }
        let Ok(exit) = (&mut self.end).await else {
            let lost = ShimError::Lost { verb: "Exec" };
            return Err(Error::step("wait for the command", lost));
        };
        self.code = Some(exit.code);
        Ok(exit.code)
    }

    /// Kills the process and its group.
    ///
    /// # Errors
    /// When the pod's shim ended.
    pub async fn kill(&self) -> Result<()> {
        let request = Kill {
            container_id: self.container_id.clone(),
            signal: SIGKILL,
            exec_id: self.exec_id,
            ..Kill::default()
        };
        match self.shim.kill(request).await {
            Err(error) if !error.is_not_running() => Err(Error::step("kill the command", error)),
            _ => Ok(()),
        }
    }
}

/// What a synchronous exec gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// Cut where both together would pass 16 MiB.
    pub stdout: Vec<u8>,
    /// Cut where both together would pass 16 MiB.
    pub stderr: Vec<u8>,
    /// 128 + the signal where one ended the process.
    pub exit_code: i32,
}

impl Runtime {
    /// Starts a process in a running container.
    ///
    /// # Errors
    /// [`Error::WrongState`] unless the container runs; a program that can't be run.
    pub async fn exec(&self, id: &str, config: ExecConfig) -> Result<ExecSession> {
        if config.command.is_empty() {
            return Err(Error::invalid("no command is given"));
        }
        let container = self.container(id)?;
        let record = container.record();
        if record.state() != ContainerState::Running {
            return Err(Error::WrongState {
                kind: "container",
                id: record.id.clone(),
                state: "not running",
                operation: "running a command",
                needs: "running",
            });
        }
        let pod = self.pod_of(&record)?;
        let shim = pod.shim().ok_or_else(|| Error::no_container(id))?;
        let (ours, theirs) = streams(&config)?;
        let request = Exec {
            container_id: record.id.clone(),
            process: Some(oci::exec_process(self, &pod.record(), &record, &config)?),
            cgroup_dirs: texts(&record.cgroup.dirs()),
            columns: config.size.map_or(0, |(columns, _)| columns.into()),
            rows: config.size.map_or(0, |(_, rows)| rows.into()),
            ..Exec::default()
        };
        let executed = shim
            .exec(request, theirs)
            .instrument(debug_span!("start command"))
            .await
            .map_err(|e| Error::step(format!("run {:?} in the container", config.command[0]), e))?;
        Ok(ExecSession {
            stdin: ours.stdin,
            stdout: ours.stdout,
            stderr: ours.stderr,
            master: executed.master,
            container_id: record.id.clone(),
            exec_id: executed.exec_id,
            code: None,
            shim,
            end: executed.end,
        })
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// [`Error::TimedOut`] after `timeout`; the command is killed first, or as soon as it starts.
    pub async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Option<Duration>,
    ) -> Result<ExecOutput> {
        let deadline = timeout.map(|limit| Instant::now() + limit.min(LONGEST_GRACE));
        let config = ExecConfig {
            command,
            stdout: true,
            stderr: true,
            ..ExecConfig::default()
        };
        let text = config.command.join(" ");
        let timed_out = || Error::TimedOut {
            command: text,
            seconds: timeout.unwrap_or_default().as_secs(),
        };
        let Some(session) = within(deadline, self.exec(id, config)).await else {
            return Err(timed_out());
        };
        let mut session = session?;
        if let Some(finished) = within(deadline, finish(&mut session)).await {
            return finished;
        }
        if let Err(error) = session.kill().await {
            tracing::warn!(error = %error.chain(), "a late command runs on");
        }
        drop(tokio::time::timeout(KILL_GRACE, session.wait()).await);
        Err(timed_out())
    }
}

/// None when `work` is not done at the deadline.
async fn within<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, work).await.ok(),
        None => Some(work.await),
    }
}

/// Makes the pipes asked for: the caller's ends and the process's.
fn streams(config: &ExecConfig) -> Result<(ExecStreams, ExecStreams)> {
    let (mut ours, mut theirs) = (ExecStreams::default(), ExecStreams::default());
    if config.tty {
        return Ok((ours, theirs));
    }
    if config.stdin {
        let (read, write) = pipe()?;
        (ours.stdin, theirs.stdin) = (Some(write), Some(read));
    }
    if config.stdout {
        let (read, write) = pipe()?;
        (ours.stdout, theirs.stdout) = (Some(read), Some(write));
    }
    if config.stderr {
        let (read, write) = pipe()?;
        (ours.stderr, theirs.stderr) = (Some(read), Some(write));
    }
    Ok((ours, theirs))
}

pub(super) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC).map_err(|e| Error::step("make a pipe", e))
}

async fn finish(session: &mut ExecSession) -> Result<ExecOutput> {
    let stdout = session.stdout.take();
    let stderr = session.stderr.take();
    let mut reader = OutputReader {
        stdout: stdout.map(receiver).transpose()?,
        stderr: stderr.map(receiver).transpose()?,
        output: ExecOutput::default(),
    };
    let code = tokio::select! {
        biased;
        code = session.wait() => code?,
        never = reader.read_forever() => match never {},
    };
    // What the command wrote is in the pipes already; a grandchild that keeps them open is not
    // waited for.
    reader.drain();
    let mut output = reader.output;
    output.exit_code = code;
    Ok(output)
}

fn receiver(fd: OwnedFd) -> Result<Receiver> {
    rustix::io::ioctl_fionbio(fd.as_fd(), true).map_err(|e| Error::step("set up a pipe", e))?;
    Receiver::from_owned_fd(fd).map_err(|e| Error::step("read a pipe", e))
}

struct OutputReader {
    stdout: Option<Receiver>,
    stderr: Option<Receiver>,
    output: ExecOutput,
}

impl OutputReader {
    async fn read_forever(&mut self) -> std::convert::Infallible {
        let (mut out, mut err) = (vec![0; 32 << 10], vec![0; 32 << 10]);
        loop {
            tokio::select! {
                read = read(&mut self.stdout, &mut out) => match read {
                    0 => self.stdout = None,
                    count => self.keep(true, &out[..count]),
                },
                read = read(&mut self.stderr, &mut err) => match read {
                    0 => self.stderr = None,
                    count => self.keep(false, &err[..count]),
                },
            }
        }
    }

    fn keep(&mut self, stdout: bool, bytes: &[u8]) {
        let room = MAX_OUTPUT_BYTES - self.output.stdout.len() - self.output.stderr.len();
        let kept = &bytes[..bytes.len().min(room)];
        let target = if stdout {
            &mut self.output.stdout
        } else {
            &mut self.output.stderr
        };
        target.extend_from_slice(kept);
    }

    fn drain(&mut self) {
        let mut buffer = vec![0; 32 << 10];
        for stdout in [true, false] {
            let pipe = if stdout {
                self.stdout.take()
            } else {
                self.stderr.take()
            };
            let Some(pipe) = pipe else { continue };
            let Ok(fd) = pipe.into_nonblocking_fd() else {
                continue;
            };
            let mut drained = 0;
            while drained < MAX_PIPE_BYTES
                && let Ok(count @ 1..) = rustix::io::read(&fd, &mut buffer[..])
            {
                drained += count;
                let bytes = buffer[..count].to_vec();
                self.keep(stdout, &bytes);
            }
        }
    }
}

/// 0 at the end or an error; never returns where there is no pipe.
async fn read(pipe: &mut Option<Receiver>, buffer: &mut [u8]) -> usize {
    match pipe {
        Some(pipe) => pipe.read(buffer).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}
