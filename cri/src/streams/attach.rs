//! The streams of a container's init and its client's.

use std::os::fd::OwnedFd;

use joey_runtime::AttachSession;
use joey_streaming::relay::{self, ClientEnds, CopyError, PipeReader, PipeWriter};
use joey_streaming::{BoxedWriter, StreamError};
use tokio_util::sync::CancellationToken;

use super::failed;

/// Relays until the container's outputs ended; without any, until the client's input did.
pub(super) async fn relay_container(
    session: AttachSession,
    client: ClientEnds,
) -> Result<(), StreamError> {
    let no_output = session.stdout.is_none() && session.stderr.is_none();
    let process = session.stdin.map(PipeWriter::from_fd).transpose();
    let process = process.map_err(failed("stdin"))?;
    let input = async {
        let (Some(client), Some(process)) = (client.stdin, process) else {
            return Ok(());
        };
        relay::copy_input(client, process)
            .await
            .map_err(failed("stdin"))
    };
    if no_output {
        return input.await;
    }
    let outputs = async {
        let (out, err) = tokio::join!(
            relay_output("stdout", session.stdout, client.stdout),
            relay_output("stderr", session.stderr, client.stderr),
        );
        out.and(err)
    };
    tokio::select! {
        ended = outputs => ended,
        Err(error) = input => Err(error),
    }
}

/// Copies one output of a container to its client; a client that takes no more is no error.
async fn relay_output(
    stream: &'static str,
    process: Option<OwnedFd>,
    client: Option<BoxedWriter>,
) -> Result<(), StreamError> {
    let (Some(process), Some(mut client)) = (process, client) else {
        return Ok(());
    };
    let mut process = PipeReader::from_fd(process).map_err(failed(stream))?;
    match relay::copy_output(&mut process, &mut client, &CancellationToken::new()).await {
        Ok(_) | Err(CopyError::Write(_)) => Ok(()),
        Err(CopyError::Read(source)) => Err(failed(stream)(source)),
    }
}
