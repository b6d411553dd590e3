//! `joey version`.

use joey_proto::api::VersionRequest;

use super::print;
use crate::client;
use crate::error::CliError;

/// Shows both sides' versions; joey's own also without a daemon.
pub async fn run(host: &str) -> Result<(), CliError> {
    print(&format!("joey: {}\n", env!("CARGO_PKG_VERSION")))?;
    let client = client::connect(host).await?;
    let daemon = client
        .clone()
        .version(VersionRequest {})
        .await?
        .into_inner();
    print(&format!(
        "joeyd: {}\nAPI: {}\nOS: {}/{}\nKernel: {}\n",
        daemon.version, daemon.api_version, daemon.os, daemon.arch, daemon.kernel,
    ))
}
