//! `joey start`.

use std::process::ExitCode;

use joey_proto::api::{ListContainersRequest, StartContainerRequest, StreamStart};

use super::each::each;
use crate::args::Start;
use crate::client::Client;
use crate::error::CliError;
use crate::session::{self, Kind};

/// Starts containers; with `-a` or `-i` one, and joey ends with its code.
pub async fn run(client: &Client, args: Start) -> Result<ExitCode, CliError> {
    if args.attach || args.interactive {
        let [container] = args.containers.as_slice() else {
            return Err(CliError::Usage(
                "one container can be attached to at a time",
            ));
        };
        let start = StreamStart {
            container: container.clone(),
            tty: has_terminal(client, container).await?,
            stdin: args.interactive,
            start: true,
            ..StreamStart::default()
        };
        return Ok(session::run(client, Kind::Attach, start).await?.exit_code());
    }
    each(args.containers, |name| async move {
        let request = StartContainerRequest {
            container: name.clone(),
        };
        client.clone().start_container(request).await?;
        Ok(name)
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}

/// Whether a container has a terminal; false for an unknown one, which the daemon will name.
pub async fn has_terminal(client: &Client, name: &str) -> Result<bool, CliError> {
    let listed = client
        .clone()
        .list_containers(ListContainersRequest { all: true })
        .await?;
    let containers = listed.into_inner().containers;
    Ok(containers.iter().any(|container| {
        container.tty && (container.name == name || container.id.starts_with(name))
    }))
}
