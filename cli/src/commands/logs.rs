//! `joey logs`.

use std::io::{self, ErrorKind, Write};

use joey_proto::api::LogsRequest;

use crate::args::Logs;
use crate::client::Client;
use crate::error::CliError;

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
        let written = match chunk.stderr {
            true => io::stderr().write_all(&chunk.data),
            false => io::stdout()
                .write_all(&chunk.data)
                .and_then(|()| io::stdout().flush()),
        };
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(CliError::Io("print", error)),
            Ok(()) => {}
        }
    }
    Ok(())
}
