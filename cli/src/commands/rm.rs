//! `joey rm`.

use joey_proto::api::RemoveContainerRequest;

use super::each::each_shown;
use super::show;
use crate::args::Rm;
use crate::client::Client;
use crate::error::CliError;
use tonic::Code;

/// Removes containers and prints their names.
pub async fn run(client: &Client, args: Rm) -> Result<(), CliError> {
    each_shown(args.containers, |name| async move {
        let request = RemoveContainerRequest {
            container: name.clone(),
            force: args.force,
        };
        match client.clone().remove_container(request).await {
            // As docker has it: by force, what is gone is no failure, but it is told.
            Err(status) if args.force && status.code() == Code::NotFound => {
                show(&status.into());
                Ok(None)
            }
            removed => removed.map(|_| Some(name)).map_err(CliError::from),
        }
    })
    .await
}
