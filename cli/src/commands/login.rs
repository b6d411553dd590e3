//! `joey login` and `joey logout`.

use std::io::{IsTerminal, Read};

use joey_proto::api::{CheckLoginRequest, RegistryAuth};

use super::print;
use crate::args::{Login, Logout};
use crate::auth::{AuthError, AuthFile, canonical};
use crate::client::Client;
use crate::error::CliError;
use crate::terminal;

/// Asks the registry whether it takes the credentials, and keeps them.
pub async fn login(client: &Client, args: Login) -> Result<(), CliError> {
    let registry = registry(&args.registry)?;
    let username = match args.username {
        Some(username) => username,
        None => terminal::ask("Username")?,
    };
    let password = match args.password {
        Some(password) => {
            terminal::warn_of_password("--password-stdin");
            password
        }
        None if args.password_stdin => read_password()?,
        None => terminal::ask_secret("Password")?,
    };
    if username.is_empty() || password.is_empty() {
        return Err(CliError::Usage("a user name and a password are needed"));
    }
    let mut file = AuthFile::find()?;
    let auth = RegistryAuth {
        username: username.clone(),
        password: password.clone(),
        ..RegistryAuth::default()
    };
    let request = CheckLoginRequest {
        registry: registry.clone(),
        auth: Some(auth),
    };
    client.clone().check_login(request).await?;
    file.store(&registry, &username, &password)?;
    print("Login Succeeded\n")
}

/// Forgets a registry's credentials.
pub fn logout(args: &Logout) -> Result<(), CliError> {
    let registry = registry(&args.registry)?;
    let mut file = AuthFile::find()?;
    print(&if file.erase(&registry)? {
        format!("Removed the login of {registry}\n")
    } else {
        format!("Not logged in to {registry}\n")
    })
}

fn registry(given: &str) -> Result<String, AuthError> {
    let registry = canonical(given);
    match registry.is_empty() || registry.contains(['/', '@', ' ']) {
        true => Err(AuthError::Registry(given.to_owned())),
        false => Ok(registry),
    }
}

/// All of standard input but the last line's end.
fn read_password() -> Result<String, CliError> {
    let failed = |error| CliError::Io("read the password", error);
    if std::io::stdin().is_terminal() {
        return terminal::ask_secret("Password");
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(failed)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}
