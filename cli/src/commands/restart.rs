//! `joey restart`.

use joey_proto::api::RestartContainerRequest;

use super::each::each;
use crate::args::Stop;
use crate::client::Client;
use crate::error::CliError;

/// Stops containers, starts them again and prints their names.
pub async fn run(client: &Client, args: Stop) -> Result<(), CliError> {
    each(args.containers, |name| async move {
        let request = RestartContainerRequest {
            container: name.clone(),
            timeout: args.time,
        };
        client.clone().restart_container(request).await?;
        Ok(name)
    })
    .await
}
