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
    let kind = args.kind.as_deref().unwrap_or_default();
    let mut found = Vec::new();
    let mut failed = false;
    for name in &args.names {
        match inspect(client, name, kind).await {
            Ok(value) => found.push(value),
            Err(error) => {
                show(&error);
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

/// Everything about an object; `kind` as in the request.
pub async fn inspect(client: &Client, name: &str, kind: &str) -> Result<Value, CliError> {
    let request = InspectRequest {
        name: name.to_owned(),
        kind: kind.to_owned(),
    };
    let reply = client.clone().inspect(request).await?.into_inner();
    serde_json::from_slice(&reply.json)
        .map_err(|error| CliError::Io("read the answer", error.into()))
}
