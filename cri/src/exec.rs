//! Exec: the URL of a streaming exec.

use joey_proto::cri::{ExecRequest, ExecResponse};
use joey_runtime::model::ContainerState;
use joey_runtime::{Container, Error};

use crate::service::Service;
use crate::status::{Failure, Result, invalid};

#[allow(
    clippy::unused_async,
    reason = "every RPC is served by an async function"
)]
pub(crate) async fn serve(service: &Service, request: ExecRequest) -> Result<ExecResponse> {
    let container = service.container(&request.container_id)?;
    if request.cmd.is_empty() {
        return Err(invalid("cmd is empty"));
    }
    check_streams(request.stdin, request.stdout, request.stderr, request.tty)?;
    check_running(&container, "running a command")?;
    let url = service.streaming.exec_url(joey_streaming::ExecRequest {
        container_id: container.id().to_owned(),
        cmd: request.cmd,
        tty: request.tty,
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
    })?;
    Ok(ExecResponse { url })
}

/// At least one stream; with a terminal standard error is part of standard output.
pub(crate) fn check_streams(stdin: bool, stdout: bool, stderr: bool, tty: bool) -> Result<()> {
    if tty && stderr {
        return Err(invalid(
            "tty and stderr exclude each other: a terminal has one output",
        ));
    }
    if !(stdin || stdout || stderr) {
        return Err(invalid("one of stdin, stdout and stderr has to be set"));
    }
    Ok(())
}

pub(crate) fn check_running(container: &Container, operation: &'static str) -> Result<()> {
    let state = match container.state() {
        ContainerState::Running => return Ok(()),
        ContainerState::Created => "created",
        ContainerState::Exited => "exited",
        ContainerState::Unknown => "in an unknown state",
    };
    Err(Failure::Runtime(Error::WrongState {
        kind: "container",
        id: container.id().to_owned(),
        state,
        operation,
        needs: "running",
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_checked_as_cri_says() {
        for (stdin, stdout, stderr, tty, right) in [
            (true, false, false, false, true),
            (false, true, true, false, true),
            (true, true, false, true, true),
            (false, false, false, false, false),
            (false, false, false, true, false),
            (false, true, true, true, false),
        ] {
            let checked = check_streams(stdin, stdout, stderr, tty);
            assert_eq!(checked.is_ok(), right, "{stdin} {stdout} {stderr} {tty}");
        }
    }
}
