//! `joey rm`.

use joey_proto::api::RemoveContainerRequest;

use super::each::each;
use crate::args::Rm;
use crate::client::Client;
use crate::error::CliError;

/// Removes containers and prints their names.
pub async fn run(client: &Client, args: Rm) -> Result<(), CliError> {
    each(args.containers, |name| async move {
        let request = RemoveContainerRequest {
            container: name.clone(),
            force: args.force,
        };
        client.clone().remove_container(request).await?;
        Ok(name)
    })
    .await
}
