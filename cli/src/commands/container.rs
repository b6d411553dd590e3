//! Makes a container as `run` and `create` do: its image is fetched when it is not there.

use std::path::PathBuf;

use joey_proto::api::{CreateContainerRequest, CreateContainerResponse, PortMapping, Volume};
use tonic::Code;

use super::pull;
use crate::args::ContainerArgs;
use crate::client::Client;
use crate::error::CliError;
use crate::parse::{self, LogOption};

/// Makes the container; its input ends with that of its first client unless `detached`.
pub async fn create(
    client: &Client,
    args: ContainerArgs,
    image: String,
    command: Vec<String>,
    detached: bool,
) -> Result<CreateContainerResponse, CliError> {
    let creds = args.credentials.creds.clone();
    let request = CreateContainerRequest {
        keep_stdin: detached,
        ..request(args, image, command)?
    };
    let mut client = client.clone();
    match client.create_container(request.clone()).await {
        // A container needs nothing else that could be absent.
        Err(status) if status.code() == Code::NotFound => {
            pull::fetch(&client, &request.image, creds.as_deref()).await?;
            Ok(client.create_container(request).await?.into_inner())
        }
        created => Ok(created?.into_inner()),
    }
}

fn request(
    args: ContainerArgs,
    image: String,
    command: Vec<String>,
) -> Result<CreateContainerRequest, CliError> {
    let files = args
        .env_file
        .iter()
        .map(read)
        .collect::<Result<Vec<_>, _>>()?;
    let port = |port: parse::Port| PortMapping {
        host_ip: port.ip,
        host_port: port.host.into(),
        container_port: port.container.into(),
        protocol: port.protocol,
    };
    let volume = |volume: parse::Volume| Volume {
        source: volume.source,
        destination: volume.target,
        readonly: volume.readonly,
    };
    let (mut log_max_bytes, mut log_max_files) = (None, 0);
    for option in args.log_opt {
        match option {
            LogOption::MaxSize(bytes) => log_max_bytes = Some(bytes),
            LogOption::MaxFiles(files) => log_max_files = files,
        }
    }
    Ok(CreateContainerRequest {
        name: args.name.unwrap_or_default(),
        image,
        set_entrypoint: args.entrypoint.is_some(),
        entrypoint: args
            .entrypoint
            .into_iter()
            .filter(|program| !program.is_empty())
            .collect(),
        command,
        env: parse::environment(&files, &args.env),
        workdir: args.workdir.unwrap_or_default(),
        user: args.user.unwrap_or_default(),
        tty: args.tty,
        stdin: args.interactive,
        hostname: args.hostname.unwrap_or_default(),
        volumes: args.volume.into_iter().map(volume).collect(),
        ports: args.publish.into_iter().map(port).collect(),
        network: args.net,
        privileged: args.privileged,
        readonly_rootfs: args.read_only,
        cap_add: args.cap_add,
        cap_drop: args.cap_drop,
        limits: Some(args.limits.to_request()),
        labels: args.label.into_iter().collect(),
        auto_remove: args.rm,
        log_max_bytes,
        log_max_files,
        stop_signal: args.stop_signal.unwrap_or_default(),
        keep_stdin: false,
    })
}

fn read(path: &PathBuf) -> Result<String, CliError> {
    std::fs::read_to_string(path).map_err(|source| CliError::File {
        path: path.clone(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_entrypoint_replaces_the_images() {
        let args = ContainerArgs {
            entrypoint: Some(String::new()),
            ..ContainerArgs::default()
        };
        let request = request(args, "a".into(), vec!["b".into()]).unwrap();
        assert!(request.set_entrypoint && request.entrypoint.is_empty());
        assert_eq!(request.command, ["b"]);
    }

    #[test]
    fn a_missing_environment_file_is_named() {
        let args = ContainerArgs {
            env_file: vec!["/nonexistent/env".into()],
            ..ContainerArgs::default()
        };
        let error = request(args, "a".into(), Vec::new())
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nonexistent/env"), "{error}");
    }
}
