//! Credentials for registries, as docker and podman keep them.

mod file;
mod helper;

use std::path::PathBuf;

use joey_proto::api::RegistryAuth;
use thiserror::Error;

use crate::terminal;
pub use file::AuthFile;

/// Docker Hub's name in references.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// Credentials that can't be had or kept.
#[derive(Debug, Error)]
pub enum AuthError {
    /// Nothing says where the file is.
    #[error("no HOME is set: name the file of credentials by REGISTRY_AUTH_FILE")]
    NoHome,
    /// The file.
    #[error("{action} {path}: {source}")]
    File {
        /// "read", "write".
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no file of credentials.
    #[error("{path} is no file of credentials: {why}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A program that keeps credentials.
    #[error("docker-credential-{name} {verb}: {why}")]
    Helper {
        /// As the file names it.
        name: String,
        /// "get", "store", "erase".
        verb: &'static str,
        /// What it said, or why it did not run.
        why: String,
    },
    /// `--creds` without a user.
    #[error("write --creds USER:PASSWORD")]
    NoUser,
    /// A registry's name.
    #[error("{0:?} is no registry: write HOST[:PORT]")]
    Registry(String),
}

/// The credentials for an image: those of `--creds`, else those kept for its registry.
pub fn for_image(
    image: &str,
    creds: Option<&str>,
) -> Result<Option<RegistryAuth>, crate::CliError> {
    if let Some(creds) = creds {
        let (username, password) = match creds.split_once(':') {
            Some((username, password)) => {
                terminal::warn_of_password("--creds USER, which asks for it,");
                (username, password.to_owned())
            }
            None => (creds, terminal::ask_secret("Password")?),
        };
        if username.is_empty() {
            return Err(AuthError::NoUser.into());
        }
        return Ok(Some(RegistryAuth {
            username: username.to_owned(),
            password,
            ..RegistryAuth::default()
        }));
    }
    let (host, path) = repository(image);
    match AuthFile::find() {
        // Where nobody can have logged in, images are pulled without credentials.
        Err(AuthError::NoHome) => Ok(None),
        file => Ok(file?.get(&host, &path)?),
    }
}

/// The registry and the path of a reference.
fn repository(image: &str) -> (String, String) {
    let name = image.split('@').next().unwrap_or(image);
    let (host, path) = match name.split_once('/') {
        Some((host, path)) if host == "localhost" || host.contains(['.', ':']) => (host, path),
        _ => (DEFAULT_REGISTRY, name),
    };
    let path = path.split(':').next().unwrap_or(path);
    let host = canonical(host);
    if host == DEFAULT_REGISTRY && !path.contains('/') {
        return (host, format!("library/{path}"));
    }
    (host, path.to_owned())
}

/// A registry as files and people name it, as references do: `docker.io` for
/// `https://index.docker.io/v1/`.
pub fn canonical(registry: &str) -> String {
    let registry = registry
        .strip_prefix("https://")
        .or_else(|| registry.strip_prefix("http://"))
        .unwrap_or(registry)
        .trim_end_matches('/');
    let registry = registry
        .strip_suffix("/v1")
        .or_else(|| registry.strip_suffix("/v2"))
        .unwrap_or(registry);
    let (host, path) = match registry.split_once('/') {
        Some((host, path)) => (host, Some(path)),
        None => (registry, None),
    };
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY,
        other => other,
    };
    match path {
        Some(path) => format!("{host}/{path}"),
        None => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_taken_apart() {
        for (image, host, path) in [
            ("busybox", "docker.io", "library/busybox"),
            ("team/app:1", "docker.io", "team/app"),
            ("index.docker.io/team/app", "docker.io", "team/app"),
            ("localhost/a", "localhost", "a"),
            ("h:5000/a/b:tag@sha256:00", "h:5000", "a/b"),
            ("registry.example.com/a", "registry.example.com", "a"),
        ] {
            assert_eq!(repository(image), (host.to_owned(), path.to_owned()));
        }
    }

    #[test]
    fn registries_have_one_name() {
        for (given, name) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("http://h:5000", "h:5000"),
            ("https://h/v2/", "h"),
            ("h/team", "h/team"),
        ] {
            assert_eq!(canonical(given), name);
        }
    }
}
