//! `joey inspect`.

use joey_proto::api::InspectRequest;
use serde_json::Value;

use super::{print, show};
use crate::args::Inspect;
use crate::client::Client;
use crate::error::CliError;

/// Prints a JSON array with everything about containers and images; one that is not there is
/// reported and the others are still shown.
pub async fn run(client: &Client, args: Inspect) -> Result<(), CliError> {
    let mut found = Vec::new();
    let mut failed = false;
    for name in args.names {
        let request = InspectRequest {
            name,
            kind: args.kind.clone().unwrap_or_default(),
        };
        match client.clone().inspect(request).await {
            Ok(reply) => {
                let value: Result<Value, _> = serde_json::from_slice(&reply.into_inner().json);
                found.push(value.map_err(|error| CliError::Io("read the answer", error.into()))?);
            }
            Err(status) => {
                show(&status.into());
                failed = true;
            }
        }
    }
    print(&format!("{:#}\n", Value::Array(found)))?;
    if failed {
        return Err(CliError::Reported);
    }
    Ok(())
}
