//! `joey rmi`.

use joey_proto::api::RemoveImageRequest;

use super::each::each;
use crate::args::Rmi;
use crate::client::Client;
use crate::error::CliError;

/// Removes images and prints their names.
pub async fn run(client: &Client, args: Rmi) -> Result<(), CliError> {
    each(args.images, |name| async move {
        let request = RemoveImageRequest {
            image: name.clone(),
            force: args.force,
        };
        client.clone().remove_image(request).await?;
        Ok(name)
    })
    .await
}
