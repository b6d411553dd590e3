//! `joey info`.

use joey_proto::api::InfoRequest;

use super::print;
use crate::client::Client;
use crate::error::CliError;

/// Shows the daemon's state.
pub async fn run(client: &Client) -> Result<(), CliError> {
    let info = client.clone().info(InfoRequest {}).await?.into_inner();
    let lines = info
        .entries
        .iter()
        .map(|entry| format!("{}: {}\n", entry.key, entry.value));
    print(&lines.collect::<String>())
}
