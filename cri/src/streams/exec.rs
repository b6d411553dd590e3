//! A command's streams and its client's.

use std::future::pending;
use std::os::fd::OwnedFd;

use joey_runtime::ExecSession;
use joey_streaming::relay::{self, ClientEnds, ProcessFds};
use joey_streaming::{SessionIo, StreamError, TerminalSize};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::sync::mpsc;

use super::failed;

/// Relays until the command ended; None when the client left before.
pub(super) async fn relay_command(
    session: &mut ExecSession,
    io: SessionIo,
) -> Result<Option<joey_runtime::Result<i32>>, StreamError> {
    let SessionIo {
        stdin,
        stdout,
        stderr,
        resize,
        closed,
    } = io;
    let (fds, master) = host_ends(session)?;
    let client = ClientEnds {
        stdin,
        stdout,
        stderr,
    };
    let relayed = Box::pin(relay::process(fds, client, session.wait(), relay::DRAIN));
    let exited = tokio::select! {
        exited = relayed => Some(exited),
        () = closed.cancelled() => None,
        () = resize_terminal(master, resize) => None,
    };
    exited.transpose().map_err(failed("the command"))
}

/// The ends to relay and, for a terminal, one more descriptor of its master to set its size.
fn host_ends(session: &mut ExecSession) -> Result<(ProcessFds, Option<OwnedFd>), StreamError> {
    let Some(master) = session.master.take() else {
        let fds = ProcessFds {
            stdin: session.stdin.take(),
            stdout: session.stdout.take(),
            stderr: session.stderr.take(),
        };
        return Ok((fds, None));
    };
    let clone = |master: &OwnedFd| master.try_clone().map_err(failed("the terminal"));
    let fds = ProcessFds {
        stdin: Some(clone(&master)?),
        stdout: Some(clone(&master)?),
        stderr: None,
    };
    Ok((fds, Some(master)))
}

/// Never ends. The descriptor is let go with the last size, so that a terminal whose client has
/// left hangs up.
async fn resize_terminal(master: Option<OwnedFd>, mut sizes: mpsc::Receiver<TerminalSize>) {
    if let Some(master) = master {
        while let Some(TerminalSize { width, height }) = sizes.recv().await {
            let size = Winsize {
                ws_row: height,
                ws_col: width,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            if let Err(error) = tcsetwinsize(&master, size) {
                tracing::debug!(%error, "resize a command's terminal");
            }
        }
    }
    pending::<()>().await;
}
