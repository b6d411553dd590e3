//! `joey attach`.

use std::process::ExitCode;

use joey_proto::api::StreamStart;

use super::start::has_terminal;
use crate::args::Attach;
use crate::client::Client;
use crate::error::CliError;
use crate::session::{self, Kind};

/// Connects to a running container; joey ends with its code.
pub async fn run(client: &Client, args: Attach) -> Result<ExitCode, CliError> {
    let start = StreamStart {
        tty: has_terminal(client, &args.container).await?,
        stdin: !args.no_stdin,
        container: args.container,
        ..StreamStart::default()
    };
    Ok(session::run(client, Kind::Attach, start).await?.exit_code())
}
