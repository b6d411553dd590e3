//! `joey attach`.

use std::process::ExitCode;

use joey_proto::api::StreamStart;

use super::inspect::inspect;
use crate::args::Attach;
use crate::client::Client;
use crate::error::CliError;
use crate::session::{self, Kind};

/// Connects to a running container; joey ends with its code.
pub async fn run(client: &Client, args: Attach) -> Result<ExitCode, CliError> {
    let start = stream(client, &args.container, !args.no_stdin).await?;
    Ok(session::run(client, Kind::Attach, start).await?.exit_code())
}

/// The streams of a container as it was made; its input where that is `wanted` and it has one.
pub async fn stream(client: &Client, name: &str, wanted: bool) -> Result<StreamStart, CliError> {
    let container = inspect(client, name, "container").await?;
    let config = &container["Config"];
    Ok(StreamStart {
        // The id: the name may be another's by then.
        container: container["Id"].as_str().unwrap_or(name).to_owned(),
        tty: config["Tty"] == true,
        stdin: wanted && config["OpenStdin"] == true,
        ..StreamStart::default()
    })
}
