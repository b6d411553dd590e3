//! Why a call to a shim failed.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A call to a shim failed.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// The shim did not do it: its own words, with the errno of the failing step (0: none).
    #[error("{message}")]
    Refused {
        /// The verb.
        verb: &'static str,
        /// The errno of the failing step, 0 where it had none.
        errno: i32,
        /// The steps, outermost first, and the cause.
        message: String,
    },
    /// No answer came in time. The request may still be carried out.
    #[error("the shim did not answer {verb} within {after:?}")]
    TimedOut {
        /// The verb.
        verb: &'static str,
        /// The bound.
        after: Duration,
    },
    /// The connection ended before an answer: the shim has died.
    #[error("the shim's connection was lost during {verb}")]
    Lost {
        /// The verb.
        verb: &'static str,
    },
    /// The answer was not one to this request.
    #[error("the shim's answer to {verb} makes no sense")]
    Garbled {
        /// The verb.
        verb: &'static str,
    },
    /// The shim's process could not be started.
    #[error("start a shim in {}", run_dir.display())]
    Spawn {
        /// The pod's run folder.
        run_dir: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Nobody listens in the run folder.
    #[error("connect to the shim in {}", run_dir.display())]
    Connect {
        /// The pod's run folder.
        run_dir: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl ShimError {
    /// The errno of the step that failed in the shim, 0 where there is none.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::Refused { errno, .. } => *errno,
            _ => 0,
        }
    }

    /// Nobody listens in the run folder, and nobody will.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let absent = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
        matches!(self, Self::Connect { source, .. } if absent.contains(&source.kind()))
    }

    /// The container or process meant does not run (any more).
    #[must_use]
    pub fn is_not_running(&self) -> bool {
        // ESRCH: known, not running. ENOENT: not known.
        matches!(self, Self::Refused { errno: 3 | 2, .. })
    }
}
