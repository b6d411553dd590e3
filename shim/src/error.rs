//! What a failing step tells the daemon: an errno and a chain of verb phrases.

use std::error::Error;
use std::io;

/// A failed step. It crosses process boundaries, so it carries text, not types.
#[derive(Debug, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[error("{message}")]
pub struct Failure {
    /// The errno of the step, 0 where it had none.
    pub errno: i32,
    /// The steps, outermost first, and the cause.
    pub message: String,
}

/// The result of a step of the shim.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure without an errno.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            errno: 0,
            message: message.into(),
        }
    }

    /// A failure with an errno whose text the message already holds.
    pub fn with_errno(errno: i32, message: impl Into<String>) -> Self {
        Self {
            errno,
            message: message.into(),
        }
    }

    /// Flattens an error and its sources into one chain.
    pub fn from_chain(error: &(dyn Error + 'static)) -> Self {
        let mut message = error.to_string();
        let mut errno = 0;
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(cause) = error.downcast_ref::<io::Error>() {
                errno = cause.raw_os_error().unwrap_or(errno);
            }
            let text = error.to_string();
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            next = error.source();
        }
        Self { errno, message }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let text = error.to_string();
        let message = match text.find(" (os error ") {
            Some(end) => text[..end].to_lowercase(),
            None => text,
        };
        Self {
            errno: error.raw_os_error().unwrap_or(0),
            message,
        }
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}

impl From<nix::errno::Errno> for Failure {
    fn from(error: nix::errno::Errno) -> Self {
        io::Error::from(error).into()
    }
}

/// Names the step that failed.
pub trait Step<T> {
    /// Puts `step` in front of the failure's message.
    fn step(self, step: impl AsRef<str>) -> Result<T>;
    /// The same, with the text made only on failure.
    fn step_with(self, step: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Failure>> Step<T> for std::result::Result<T, E> {
    fn step(self, step: impl AsRef<str>) -> Result<T> {
        self.step_with(|| step.as_ref().to_owned())
    }

    fn step_with(self, step: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let Failure { errno, message } = error.into();
            Failure {
                errno,
                message: format!("{}: {message}", step()),
            }
        })
    }
}
