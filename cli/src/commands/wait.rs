//! `joey wait`.

use joey_proto::api::WaitContainerRequest;

use super::each::each;
use crate::args::Containers;
use crate::client::Client;
use crate::error::CliError;

/// Waits for containers in turn and prints their exit codes.
pub async fn run(client: &Client, args: Containers) -> Result<(), CliError> {
    each(args.containers, |container| async move {
        let ended = client
            .clone()
            .wait_container(WaitContainerRequest {
                container,
                removed: false,
            })
            .await?;
        Ok(ended.into_inner().exit_code.to_string())
    })
    .await
}
