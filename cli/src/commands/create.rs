//! `joey create`.

use super::{container, print};
use crate::args::Create;
use crate::client::Client;
use crate::error::CliError;

/// Makes a container and prints its id.
pub async fn run(client: &Client, args: Create) -> Result<(), CliError> {
    let made = container::create(client, args.container, args.image, args.command, false).await?;
    print(&format!("{}\n", made.id))
}
