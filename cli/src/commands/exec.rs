//! `joey exec`.

use std::process::ExitCode;

use joey_proto::api::StreamStart;

use crate::args::Exec;
use crate::client::Client;
use crate::error::CliError;
use crate::parse;
use crate::session::{self, Kind};

/// Runs a command in a container; joey ends with its code.
pub async fn run(client: &Client, args: Exec) -> Result<ExitCode, CliError> {
    let start = StreamStart {
        container: args.container,
        command: args.command,
        tty: args.tty,
        stdin: args.interactive,
        env: parse::environment(&[], &args.env),
        workdir: args.workdir.unwrap_or_default(),
        user: args.user.unwrap_or_default(),
        ..StreamStart::default()
    };
    Ok(session::run(client, Kind::Exec, start).await?.exit_code())
}
