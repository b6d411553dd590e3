//! `joey stop`.

use joey_proto::api::StopContainerRequest;

use super::each::each;
use crate::args::Stop;
use crate::client::Client;
use crate::error::CliError;

/// Stops containers and prints their names.
pub async fn run(client: &Client, args: Stop) -> Result<(), CliError> {
    each(args.containers, |name| async move {
        let request = StopContainerRequest {
            container: name.clone(),
            timeout: args.time,
        };
        client.clone().stop_container(request).await?;
        Ok(name)
    })
    .await
}
