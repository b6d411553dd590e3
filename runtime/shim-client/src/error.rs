//! What a call to a shim fails with.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// A call to a shim that failed.
#[derive(Debug, Error)]
pub enum CallError {
    /// The shim carried the call out and it failed.
    #[error("{message}")]
    Failed {
        /// 0 where no system call failed.
        errno: i32,
        /// The step and its causes.
        message: String,
    },
    /// The shim ended or closed the connection.
    #[error("the shim is gone")]
    Gone,
    /// The shim did not answer in time.
    #[error("the shim does not answer {call} within {limit:?}")]
    Late {
        /// The call.
        call: &'static str,
        /// Its deadline.
        limit: Duration,
    },
    /// The shim answered with something else.
    #[error("the shim answered {call} with another call's reply")]
    Confused {
        /// The call.
        call: &'static str,
    },
    /// A protocol this daemon does not speak.
    #[error("the shim speaks protocol {0}, newer than this daemon's")]
    Protocol(u32),
    /// The connection can't be made.
    #[error("connect to {path}")]
    Connect {
        /// The shim's socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The shim can't be started.
    #[error("{step}")]
    Spawn {
        /// What failed.
        step: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}
