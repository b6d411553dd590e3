//! `joey version`.

use joey_proto::api::VersionRequest;

use super::print;
use crate::client::Client;
use crate::error::CliError;

/// Shows both sides' versions.
pub async fn run(client: &Client) -> Result<(), CliError> {
    let daemon = client
        .clone()
        .version(VersionRequest {})
        .await?
        .into_inner();
    print(&format!(
        "joey: {}\njoeyd: {}\nAPI: {}\nOS: {}/{}\nKernel: {}\n",
        env!("CARGO_PKG_VERSION"),
        daemon.version,
        daemon.api_version,
        daemon.os,
        daemon.arch,
        daemon.kernel,
    ))
}
