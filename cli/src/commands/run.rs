//! `joey run`.

use std::process::ExitCode;
use std::time::Duration;

use joey_proto::api::{StartContainerRequest, StreamStart, WaitContainerRequest};

use super::{container, print};
use crate::args::{ContainerArgs, Run};
use crate::client::Client;
use crate::error::CliError;
use crate::session::{self, End, Kind};
use crate::signals::{ENDING, Signals};

/// How long joey waits for the daemon to remove an ended container.
const REMOVAL: Duration = Duration::from_secs(10);

/// Makes and starts a container; attached, joey ends with its code.
pub async fn run(client: &Client, args: Run) -> Result<ExitCode, CliError> {
    let ContainerArgs {
        tty,
        interactive: stdin,
        rm: removed,
        ..
    } = args.container;
    if tty && stdin && !args.detach && !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        return Err(CliError::NoTerminal);
    }
    let detach = args.detach;
    let made = container::create(client, args.container, args.image, args.command, detach).await?;
    if detach {
        let request = StartContainerRequest {
            container: made.id.clone(),
        };
        client.clone().start_container(request).await?;
        print(&format!("{}\n", made.id))?;
        return Ok(ExitCode::SUCCESS);
    }
    let start = StreamStart {
        container: made.id.clone(),
        tty,
        stdin,
        start: true,
        ..StreamStart::default()
    };
    let ended = session::run(client, Kind::Run, start).await;
    if removed && matches!(ended, Err(_) | Ok(End::Exited(_))) {
        wait_for_removal(client, made.id).await;
    }
    Ok(ended?.exit_code())
}

/// Waits until the daemon has removed the container, so that its name is free again.
async fn wait_for_removal(client: &Client, container: String) {
    let mut client = client.clone();
    let request = WaitContainerRequest {
        container,
        removed: true,
    };
    // The session's are taken over for good: without this they would do nothing.
    let Ok(mut ended) = Signals::listen(false, ENDING) else {
        return;
    };
    // The removal goes on without joey.
    tokio::select! {
        waited = tokio::time::timeout(REMOVAL, client.wait_container(request)) => drop(waited),
        _ = ended.next() => {}
    }
}
