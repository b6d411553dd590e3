//! Carries bytes between a client's streams and a process's pipes or terminal.
//!
//! [`process`] does it all for one process: standard input with its end, standard output and
//! error until their end, or until a bounded time after the process ended when someone it left
//! behind keeps them open.

mod fd;

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub use self::fd::{PipeReader, PipeWriter};
use crate::api::{BoxedReader, BoxedWriter};

/// How long output may stay open after its process ended.
pub const DRAIN: Duration = Duration::from_secs(10);
/// Bytes moved at once.
const CHUNK: usize = 32 * 1024;
/// Most bytes still taken when the time is over: a pipe's largest usual capacity.
const LAST_BYTES: usize = 1 << 20;

/// Which side of a copy failed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source can't be read.
    #[error("read")]
    Read(#[source] io::Error),
    /// The destination takes no more.
    #[error("write")]
    Write(#[source] io::Error),
}

/// How an output ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// At its end.
    Fully,
    /// It was still open when told to stop; all that was in it then has been written.
    Stopped,
}

/// Copies until the source ends, then shuts the destination down.
///
/// # Errors
/// When either side fails; the destination is not shut down then.
pub async fn copy<R, W>(reader: &mut R, writer: &mut W) -> Result<u64, CopyError>
where
    R: AsyncRead + Unpin + ?Sized,
    W: AsyncWrite + Unpin + ?Sized,
{
    let mut buffer = vec![0; CHUNK];
    let mut copied = 0;
    loop {
        let count = reader.read(&mut buffer).await.map_err(CopyError::Read)?;
        if count == 0 {
            break;
        }
        writer
            .write_all(&buffer[..count])
            .await
            .map_err(CopyError::Write)?;
        copied += count as u64;
    }
    writer.shutdown().await.map_err(CopyError::Write)?;
    Ok(copied)
}

/// Copies a client's input to a process. The process's input is closed when the client closes
/// its end or leaves; a process that reads no more ends the copy in good order.
///
/// # Errors
/// When the process's input fails otherwise.
pub async fn copy_input(mut client: BoxedReader, mut process: PipeWriter) -> io::Result<()> {
    match copy(&mut client, &mut process).await {
        Ok(_) | Err(CopyError::Read(_)) => Ok(()),
        Err(CopyError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(CopyError::Write(error)) => Err(error),
    }
}

/// Copies a process's output to a client until it ends, then ends the client's stream. When
/// `stop` is cancelled it ends with what the pipe holds at that time.
///
/// # Errors
/// When either side fails. After a failed write the process's end should be dropped, so that
/// the process is told, or read on by [`discard`].
pub async fn copy_output(
    process: &mut PipeReader,
    client: &mut BoxedWriter,
    stop: &CancellationToken,
) -> Result<Drained, CopyError> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            read = process.read(&mut buffer) => read,
        };
        let count = read.map_err(CopyError::Read)?;
        if count == 0 {
            client.shutdown().await.map_err(CopyError::Write)?;
            return Ok(Drained::Fully);
        }
        // A slow client is waited for: the process's last words are not lost to a time limit.
        client
            .write_all(&buffer[..count])
            .await
            .map_err(CopyError::Write)?;
    }
    let mut drained = Drained::Stopped;
    let mut taken = 0;
    while taken < LAST_BYTES {
        let Some(count) = process
            .read_available(&mut buffer)
            .map_err(CopyError::Read)?
        else {
            break;
        };
        if count == 0 {
            drained = Drained::Fully;
            break;
        }
        client
            .write_all(&buffer[..count])
            .await
            .map_err(CopyError::Write)?;
        taken += count;
    }
    client.shutdown().await.map_err(CopyError::Write)?;
    Ok(drained)
}

/// Reads an output to its end, so that its process is not held up.
///
/// # Errors
/// When reading fails.
pub async fn discard(process: &mut PipeReader) -> io::Result<u64> {
    tokio::io::copy(process, &mut tokio::io::sink()).await
}

/// The host's ends of a process's streams. For a terminal, `stdin` and `stdout` are two
/// descriptors of its master and `stderr` is none.
#[derive(Debug, Default)]
pub struct ProcessFds {
    /// Where the process's input is written.
    pub stdin: Option<OwnedFd>,
    /// Where its output is read.
    pub stdout: Option<OwnedFd>,
    /// Where its errors are read.
    pub stderr: Option<OwnedFd>,
}

/// The client's ends, without what the caller handles itself.
#[derive(Default)]
pub struct ClientEnds {
    /// What the client sends.
    pub stdin: Option<BoxedReader>,
    /// What the client takes as output.
    pub stdout: Option<BoxedWriter>,
    /// What the client takes as errors.
    pub stderr: Option<BoxedWriter>,
}

impl std::fmt::Debug for ClientEnds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientEnds").finish_non_exhaustive()
    }
}

/// Relays until `exited` gives the process's outcome and its output is drained, at most `drain`
/// longer. A stream the client does not take is read and dropped; one whose client has gone is
/// closed, as a shell would. Input nobody sends is closed at once.
///
/// # Errors
/// When a descriptor can't be waited on, before anything is relayed.
pub async fn process<T>(
    fds: ProcessFds,
    client: ClientEnds,
    exited: impl Future<Output = T>,
    drain: Duration,
) -> io::Result<T> {
    let stdin = fds.stdin.map(PipeWriter::from_fd).transpose()?;
    let stdout = fds.stdout.map(PipeReader::from_fd).transpose()?;
    let stderr = fds.stderr.map(PipeReader::from_fd).transpose()?;
    let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
    let input = async {
        let (Some(client), Some(process)) = (client.stdin, stdin) else {
            return;
        };
        tokio::select! {
            copied = copy_input(client, process) => report("stdin", copied),
            () = ended.cancelled() => {}
        }
    };
    let outputs = async {
        tokio::join!(
            output("stdout", stdout, client.stdout, &stop),
            output("stderr", stderr, client.stderr, &stop),
        );
    };
    let exit = async {
        let outcome = exited.await;
        ended.cancel();
        outcome
    };
    let work = async { tokio::join!(exit, input, outputs) };
    tokio::pin!(work);
    let late = async {
        ended.cancelled().await;
        sleep_until(Instant::now() + drain).await;
        stop.cancel();
    };
    tokio::select! {
        (outcome, (), ()) = &mut work => Ok(outcome),
        () = late => {
            let (outcome, (), ()) = work.await;
            Ok(outcome)
        }
    }
}

async fn output(
    name: &'static str,
    process: Option<PipeReader>,
    client: Option<BoxedWriter>,
    stop: &CancellationToken,
) {
    let Some(mut process) = process else { return };
    let mut client = client.unwrap_or_else(|| Box::new(tokio::io::sink()));
    match copy_output(&mut process, &mut client, stop).await {
        Ok(Drained::Fully) => {}
        Ok(Drained::Stopped) => tracing::debug!(stream = name, "output left open by its process"),
        Err(error) => report(name, Err(io::Error::other(error))),
    }
}

fn report(stream: &'static str, result: io::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(
            stream,
            error = crate::api::chain(&error),
            "relay ended early"
        );
    }
}

#[cfg(test)]
mod tests;
