//! The connection to the daemon.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use joey_proto::api::joey_client::JoeyClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::error::CliError;

/// The largest message either way.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Joey's API.
pub type Client = JoeyClient<Channel>;

/// Connects to the daemon of an address.
///
/// # Errors
/// When the address is none, or nobody answers.
pub async fn connect(host: &str) -> Result<Client, CliError> {
    let path = socket(host)?;
    // Tried first for an error that says what is wrong; the channel's own would not.
    if let Err(source) = UnixStream::connect(&path).await {
        return Err(match source.kind() {
            ErrorKind::PermissionDenied => CliError::Forbidden(path),
            _ => CliError::NoDaemon {
                socket: path,
                source,
            },
        });
    }
    let connector = service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://joey")
        .connect_with_connector(connector)
        .await?;
    Ok(JoeyClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES))
}

fn socket(host: &str) -> Result<PathBuf, CliError> {
    let path = Path::new(host.strip_prefix("unix://").unwrap_or(host));
    match path.is_absolute() {
        true => Ok(path.to_owned()),
        false => Err(CliError::Host(host.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_daemon_is_named_with_its_socket() {
        let error = connect("unix:///nonexistent/joey.sock")
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("/nonexistent/joey.sock") && error.contains("joeyd"),
            "{error}"
        );
        assert!(matches!(
            connect("tcp://1.2.3.4:5").await,
            Err(CliError::Host(_))
        ));
    }
}
