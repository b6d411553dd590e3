//! `joey update`.

use joey_proto::api::UpdateContainerRequest;

use super::each::each;
use crate::args::Update;
use crate::client::Client;
use crate::error::CliError;
use crate::parse;

/// Changes containers and prints their names.
pub async fn run(client: &Client, args: Update) -> Result<(), CliError> {
    let limits = args.limits.to_request();
    let env = parse::environment(&[], &args.env);
    if limits == Default::default() && env.is_empty() {
        return Err(CliError::Usage("give a limit or a variable to change"));
    }
    each(args.containers, |name| {
        let request = UpdateContainerRequest {
            container: name.clone(),
            limits: Some(limits.clone()),
            env: env.clone(),
        };
        async move {
            client.clone().update_container(request).await?;
            Ok(name)
        }
    })
    .await
}
