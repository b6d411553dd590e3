//! Credential helpers: programs `docker-credential-NAME` that keep secrets elsewhere. What is
//! secret goes through their standard input and output, never through arguments.

use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use joey_proto::api::RegistryAuth;
use serde_json::{Value, json};

use super::AuthError;

/// The user name that says that the secret is an identity token.
const TOKEN_USER: &str = "<token>";
/// What helpers say when they have nothing for a registry.
const NOT_FOUND: &str = "credentials not found";

/// Asks for a registry's credentials; None where the helper has none.
pub fn get(name: &str, registry: &str) -> Result<Option<RegistryAuth>, AuthError> {
    let answer = match run(name, "get", registry) {
        Err(AuthError::Helper { why, .. }) if why.contains(NOT_FOUND) => return Ok(None),
        answer => answer?,
    };
    let parsed: Result<Value, _> = serde_json::from_str(&answer);
    let Ok(reply) = parsed else {
        return Err(failed(name, "get", "its answer is no JSON"));
    };
    let field = |key: &str| reply[key].as_str().unwrap_or_default().to_owned();
    let (username, secret) = (field("Username"), field("Secret"));
    Ok(Some(if username == TOKEN_USER {
        RegistryAuth {
            identity_token: secret,
            ..RegistryAuth::default()
        }
    } else {
        RegistryAuth {
            username,
            password: secret,
            ..RegistryAuth::default()
        }
    }))
}

/// Gives it a registry's credentials.
pub fn store(name: &str, registry: &str, username: &str, secret: &str) -> Result<(), AuthError> {
    let entry = json!({"ServerURL": registry, "Username": username, "Secret": secret});
    run(name, "store", &entry.to_string()).map(drop)
}

/// Lets it forget a registry.
pub fn erase(name: &str, registry: &str) -> Result<(), AuthError> {
    run(name, "erase", registry).map(drop)
}

fn failed(name: &str, verb: &'static str, why: impl Into<String>) -> AuthError {
    AuthError::Helper {
        name: name.to_owned(),
        verb,
        why: why.into(),
    }
}

fn run(name: &str, verb: &'static str, input: &str) -> Result<String, AuthError> {
    if name.contains('/') {
        return Err(failed(name, verb, "a helper's name is no path"));
    }
    let system = |error: std::io::Error| failed(name, verb, error.to_string());
    let mut child = Command::new(format!("docker-credential-{name}"))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => failed(name, verb, "there is no such program"),
            _ => system(error),
        })?;
    // A helper may answer without having read everything.
    let written = match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(input.as_bytes()),
        None => Ok(()),
    };
    let ended = child.wait_with_output().map_err(system)?;
    let said = String::from_utf8_lossy(&ended.stdout).trim().to_owned();
    if !ended.status.success() {
        // Helpers explain themselves on standard output; after a failure that is no secret.
        return Err(failed(name, verb, said));
    }
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(system(error)),
        _ => Ok(said),
    }
}
