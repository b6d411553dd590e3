//! What a command fails with, and the code it exits with.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use thiserror::Error;
use tonic::{Code, Status};

use crate::auth::AuthError;

/// As docker has it: joey was called wrongly, or the container was not run.
pub const NOT_RUN: u8 = 125;
/// 128 + SIGINT.
const INTERRUPTED: u8 = 130;
/// The metadata in which the daemon tells the code for a program that did not start.
const EXIT_CODE: &str = "joey-exit-code";

/// A command that failed.
#[derive(Debug, Error)]
pub enum CliError {
    /// No daemon answers.
    #[error("no daemon answers on {socket}: {source}; is joeyd running? -H names another socket")]
    NoDaemon {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket may not be used.
    #[error("{0} may not be used by this user; joey needs its group or root")]
    Forbidden(PathBuf),
    /// The address is none.
    #[error("{0:?} is no address of a daemon: write unix:///run/joey/joey.sock")]
    Host(String),
    /// The connection can't be set up.
    #[error("connect to the daemon: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// The daemon said no.
    #[error("{}", text(.0))]
    Status(Box<Status>),
    /// A file named on the command line.
    #[error("read {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The terminal or a pipe.
    #[error("{0}: {1}")]
    Io(&'static str, io::Error),
    /// `-t` without a terminal.
    #[error("standard input is no terminal: leave out -t")]
    NoTerminal,
    /// Credentials.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The stream ended early.
    #[error("the daemon ended the stream before its end")]
    CutOff,
    /// Somebody would have to be asked.
    #[error("{0} is needed, and standard input is no terminal to ask for it on; see --help")]
    NoAnswer(&'static str),
    /// Flags that do not go together.
    #[error("{0}")]
    Usage(&'static str),
    /// The user gave up at a question.
    #[error("interrupted")]
    Cancelled,
    /// Some of several objects; each was reported.
    #[error("")]
    Reported,
}

fn text(status: &Status) -> String {
    match status.code() {
        // Only joey's own side gives a status a source.
        _ if std::error::Error::source(status).is_some() => {
            "the connection to the daemon broke off".into()
        }
        Code::Unavailable if status.message().is_empty() => "the daemon is not available".into(),
        Code::Unimplemented => {
            "the daemon does not know this command; is it older than joey?".into()
        }
        _ => status.message().to_owned(),
    }
}

impl From<Status> for CliError {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl CliError {
    /// The code of a command that does not run a program.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Cancelled => ExitCode::from(INTERRUPTED),
            _ => ExitCode::FAILURE,
        }
    }

    /// The code of a command whose own code is the program's.
    pub fn run_exit_code(&self) -> ExitCode {
        let told = match self {
            Self::Cancelled => return self.exit_code(),
            Self::Status(status) => status.metadata().get(EXIT_CODE),
            _ => None,
        };
        let code = told
            .and_then(|code| code.to_str().ok())
            .and_then(|code| code.parse().ok());
        ExitCode::from(code.unwrap_or(NOT_RUN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_tells_the_code_of_a_program_that_did_not_start() {
        let mut status = Status::internal("no such program");
        let error = CliError::from(status.clone());
        assert_eq!(error.run_exit_code(), ExitCode::from(125));
        status
            .metadata_mut()
            .insert(EXIT_CODE, tonic::metadata::MetadataValue::from(127));
        let error = CliError::from(status);
        assert_eq!(error.run_exit_code(), ExitCode::from(127));
        assert_eq!(error.exit_code(), ExitCode::FAILURE);
        assert_eq!(error.to_string(), "no such program");
    }
}
