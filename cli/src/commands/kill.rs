//! `joey kill`.

use joey_proto::api::KillContainerRequest;

use super::each::each;
use crate::args::Kill;
use crate::client::Client;
use crate::error::CliError;

/// Sends containers a signal and prints their names.
pub async fn run(client: &Client, args: Kill) -> Result<(), CliError> {
    each(args.containers, |name| async move {
        let request = KillContainerRequest {
            container: name.clone(),
            signal: args.signal,
        };
        client.clone().kill_container(request).await?;
        Ok(name)
    })
    .await
}
