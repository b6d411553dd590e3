//! `joey run`.

use std::process::ExitCode;

use joey_proto::api::{StartContainerRequest, StreamStart};

use super::{container, print};
use crate::args::Run;
use crate::client::Client;
use crate::error::CliError;
use crate::session::{self, Kind};

/// Makes and starts a container; attached, joey ends with its code.
pub async fn run(client: &Client, args: Run) -> Result<ExitCode, CliError> {
    let (tty, stdin) = (args.container.tty, args.container.interactive);
    if tty && stdin && !args.detach && !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        return Err(CliError::NoTerminal);
    }
    let made = container::create(client, args.container, args.image, args.command).await?;
    if args.detach {
        let request = StartContainerRequest {
            container: made.id.clone(),
        };
        client.clone().start_container(request).await?;
        print(&format!("{}\n", made.id))?;
        return Ok(ExitCode::SUCCESS);
    }
    let start = StreamStart {
        container: made.id,
        tty,
        stdin,
        start: true,
        ..StreamStart::default()
    };
    Ok(session::run(client, Kind::Attach, start).await?.exit_code())
}
