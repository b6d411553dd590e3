//! `joey logs`.

use std::io::ErrorKind;

use joey_proto::api::LogsRequest;

use crate::args::Logs;
use crate::client::Client;
use crate::error::CliError;
use crate::stdio::{self, Target};

/// Shows a container's output, its standard error on joey's.
pub async fn run(client: &Client, args: Logs) -> Result<(), CliError> {
    let request = LogsRequest {
        container: args.container,
        follow: args.follow,
        tail: args.tail,
        timestamps: args.timestamps,
        since: args.since.unwrap_or_default(),
        until: args.until.unwrap_or_default(),
    };
    let mut chunks = client.clone().logs(request).await?.into_inner();
    while let Some(chunk) = chunks.message().await? {
        let target = match chunk.stderr {
            true => Target::Err,
            false => Target::Out,
        };
        match stdio::write(target, &chunk.data) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(CliError::Io("print", error)),
            Ok(()) => {}
        }
    }
    Ok(())
}
