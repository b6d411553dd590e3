//! `joey start`.

use std::process::ExitCode;

use joey_proto::api::{StartContainerRequest, StreamStart};

use super::attach;
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
            start: true,
            ..attach::stream(client, container, args.interactive).await?
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
