//! Streams made of this machine's processes and ports: what a runtime would put behind the server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at once"
)]

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use joey_streaming::relay::{self, ClientEnds, ProcessFds};
use joey_streaming::{
    AttachRequest, BoxedDuplex, ExecRequest, Server, SessionIo, StreamError, StreamingConfig,
    Streams, TerminalSize, TlsFiles,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

/// Runs commands, attaches to an echo, forwards to this machine's loopback.
#[derive(Debug)]
pub struct Machine;

/// Starts a server on a free port.
pub async fn start(config: StreamingConfig) -> (Arc<Server>, CancellationToken) {
    let server = Server::bind(config, Arc::new(Machine))
        .await
        .expect("bind to loopback");
    let shutdown = CancellationToken::new();
    tokio::spawn(server.clone().serve(shutdown.clone()));
    (server, shutdown)
}

/// The test authority: `ca.pem`, and certificates and keys it signed before its own was thrown away.
#[allow(dead_code, reason = "each test file uses its part")]
pub fn tls_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/authority")
}

/// The server's certificate and key in a folder.
#[allow(dead_code, reason = "each test file uses its part")]
pub fn tls_files(folder: &Path) -> TlsFiles {
    TlsFiles {
        certificate: folder.join("server.pem"),
        key: folder.join("server.key"),
    }
}

fn failed(stream: &'static str) -> impl Fn(std::io::Error) -> StreamError {
    move |source| StreamError::Relay { stream, source }
}

struct Stdios {
    child: [Stdio; 3],
    fds: ProcessFds,
    terminal: Option<OwnedFd>,
}

fn pipes() -> std::io::Result<Stdios> {
    let (stdin, stdin_end) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stdout_end, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr_end, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok(Stdios {
        child: [stdin.into(), stdout.into(), stderr.into()],
        fds: ProcessFds {
            stdin: Some(stdin_end),
            stdout: Some(stdout_end),
            stderr: Some(stderr_end),
        },
        terminal: None,
    })
}

fn terminal() -> std::io::Result<Stdios> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    Ok(Stdios {
        child: [
            slave.try_clone()?.into(),
            slave.try_clone()?.into(),
            slave.into(),
        ],
        fds: ProcessFds {
            stdin: Some(master.try_clone()?),
            stdout: Some(master.try_clone()?),
            stderr: None,
        },
        terminal: Some(master),
    })
}

#[async_trait]
impl Streams for Machine {
    async fn exec(&self, request: ExecRequest, io: SessionIo) -> Result<i32, StreamError> {
        if request.container_id == "missing" {
            return Err(StreamError::ContainerNotFound {
                id: request.container_id,
            });
        }
        if request.container_id == "broken" {
            panic!("a fault behind the server");
        }
        let stdios = if request.tty { terminal() } else { pipes() };
        let Stdios {
            child: [stdin, stdout, stderr],
            fds,
            terminal,
        } = stdios.map_err(failed("set-up"))?;
        let mut command = if request.tty {
            // The terminal must become the command's controlling one.
            let mut command = Command::new("setsid");
            command.arg("--ctty").args(&request.cmd);
            command
        } else {
            let mut command = Command::new(&request.cmd[0]);
            command.args(&request.cmd[1..]);
            command
        };
        let mut child = command
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .map_err(failed("command"))?;
        // The builder holds the child's ends.
        drop(command);
        let SessionIo {
            stdin,
            stdout,
            stderr,
            mut resize,
            ..
        } = io;
        let resizing = tokio::spawn(async move {
            while let (Some(TerminalSize { width, height }), Some(terminal)) =
                (resize.recv().await, &terminal)
            {
                let size = Winsize {
                    ws_row: height,
                    ws_col: width,
                    ws_xpixel: 0,
                    ws_ypixel: 0,
                };
                tcsetwinsize(terminal, size).expect("size of a terminal");
            }
        });
        let ends = ClientEnds {
            stdin,
            stdout,
            stderr,
        };
        let exited = async {
            let status = child.wait().await;
            resizing.abort();
            status
        };
        let status = relay::process(fds, ends, exited, Duration::from_secs(2))
            .await
            .and_then(|status| status)
            .map_err(failed("process"))?;
        Ok(status.code().unwrap_or(137))
    }

    async fn attach(&self, _: AttachRequest, io: SessionIo) -> Result<(), StreamError> {
        let Some(mut stdout) = io.stdout else {
            return Ok(());
        };
        stdout
            .write_all(b"attached\n")
            .await
            .map_err(failed("stdout"))?;
        if let Some(mut stdin) = io.stdin {
            tokio::io::copy(&mut stdin, &mut stdout)
                .await
                .map_err(failed("stdin"))?;
        } else {
            // A silent container: only the client's leaving ends this.
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    async fn port_forward(
        &self,
        pod_id: &str,
        port: u16,
        mut stream: BoxedDuplex,
    ) -> Result<(), StreamError> {
        let mut connection = TcpStream::connect(("127.0.0.1", port))
            .await
            .map_err(|source| StreamError::Connect {
                id: pod_id.to_owned(),
                port,
                source,
            })?;
        tokio::io::copy_bidirectional(&mut stream, &mut connection)
            .await
            .map_err(failed("connection"))?;
        Ok(())
    }
}
