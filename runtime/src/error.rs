//! What pod and container operations fail with.
//!
//! One enum per kind of object; each variant says what the caller can do about it, carries the
//! object's name and keeps its cause.

use std::path::PathBuf;

use joey_cgroup::{PlanError, UpdateError};
use joey_shim_client::ShimError;
use rustix::io::Errno;
use thiserror::Error;

/// A cause of any type, kept for its text and its chain.
pub type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A pod or container operation that failed.
#[derive(Debug, Error)]
#[allow(clippy::error_impl_error, reason = "used as `joey_runtime::Error`")]
pub enum Error {
    /// The object does not exist.
    #[error("{kind} {id:?} not found")]
    NotFound {
        /// "pod sandbox", "container" …
        kind: &'static str,
        /// As the caller named it.
        id: String,
    },
    /// A request that can never be right.
    #[error("{what}")]
    Invalid {
        /// The field and what is wrong with it.
        what: String,
    },
    /// The object is in a state that does not allow the operation.
    #[error("{kind} {id} is {state}, {operation} needs {needs}")]
    WrongState {
        /// "pod sandbox", "container" …
        kind: &'static str,
        /// Its id.
        id: String,
        /// The state it is in.
        state: &'static str,
        /// What was tried.
        operation: &'static str,
        /// The state it has to be in.
        needs: &'static str,
    },
    /// The name belongs to an object made from another request.
    #[error("{kind} name {name:?} is used by {id}")]
    NameTaken {
        /// "pod sandbox", "container" …
        kind: &'static str,
        /// The name.
        name: String,
        /// Who holds it.
        id: String,
    },
    /// This node cannot do what was asked for.
    #[error("{what} is not supported here: {why}")]
    Unsupported {
        /// The feature.
        what: String,
        /// The missing kernel feature or setting.
        why: String,
    },
    /// What is used does not allow it now.
    #[error("{what}")]
    InUse {
        /// The step and what is in use.
        what: String,
    },
    /// An exec took longer than it may.
    #[error("command {command:?} timed out after {seconds} s")]
    TimedOut {
        /// The command.
        command: String,
        /// Its limit.
        seconds: u64,
    },
    /// A limit of this node is reached.
    #[error("{what} exhausted")]
    Exhausted {
        /// The resource.
        what: String,
    },
    /// A step of an operation failed.
    #[error("{step}")]
    Step {
        /// A verb phrase with the object: "attach pod … to the network".
        step: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// A file could not be read or written.
    #[error("{action} {path}")]
    File {
        /// "read", "write", "create" …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The result of the same operation, begun by an earlier caller and joined by this one.
    #[error(transparent)]
    Joined(std::sync::Arc<Error>),
    /// The operation's task died; a defect.
    #[error("the operation ended without a result")]
    Aborted,
}

impl Error {
    /// A failed step.
    pub fn step(step: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self::Step {
            step: step.into(),
            source: source.into(),
        }
    }

    /// Limits that the cgroups do not take, by what the caller can do about it.
    pub(crate) fn limits(step: impl Into<String>, source: impl Into<Cause>) -> Self {
        let (step, source) = (step.into(), source.into());
        let first: &(dyn std::error::Error + 'static) = source.as_ref();
        for cause in std::iter::successors(Some(first), |cause| cause.source()) {
            if let Some(error) = cause.downcast_ref::<PlanError>() {
                return Self::unplanned(&step, error);
            }
            if let Some(UpdateError::Plan(error)) = cause.downcast_ref() {
                return Self::unplanned(&step, error);
            }
            let refused = cause.downcast_ref().and_then(Errno::from_io_error);
            // A memory limit below what can't be reclaimed; on v1 the kernel says so.
            let in_use = matches!(cause.downcast_ref(), Some(UpdateError::MemoryInUse { .. }));
            if in_use || refused == Some(Errno::BUSY) {
                return Self::InUse {
                    what: format!("{step}: {}", chain(first)),
                };
            }
            // What the kernel finds to be no value.
            if matches!(refused, Some(Errno::INVAL | Errno::RANGE)) {
                return Self::invalid(format!("{step}: {}", chain(first)));
            }
        }
        Self::step(step, source)
    }

    fn unplanned(step: &str, error: &PlanError) -> Self {
        match error {
            PlanError::BadPageSize(_)
            | PlanError::BadUnifiedKey { .. }
            | PlanError::SwapBelowMemory { .. } => Self::invalid(format!("{step}: {error}")),
            PlanError::MissingController { .. }
            | PlanError::MissingFile { .. }
            | PlanError::UnifiedOnV1 { .. } => Self::Unsupported {
                what: step.to_owned(),
                why: error.to_string(),
            },
        }
    }

    /// A failed file operation.
    pub fn file(action: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::File {
            action,
            path: path.into(),
            source,
        }
    }

    /// A request that can never be right.
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }

    pub(crate) fn no_pod(id: &str) -> Self {
        Self::NotFound {
            kind: "pod sandbox",
            id: id.to_owned(),
        }
    }

    pub(crate) fn no_container(id: &str) -> Self {
        Self::NotFound {
            kind: "container",
            id: id.to_owned(),
        }
    }

    /// The error itself, also where it was joined.
    #[must_use]
    pub fn root(&self) -> &Error {
        match self {
            Self::Joined(error) => error.root(),
            other => other,
        }
    }

    /// The error and all its causes in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// The errno with which a shim refused what it was asked for; None for any other cause.
#[must_use]
pub fn refusal(cause: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let errno = cause.downcast_ref::<ShimError>()?.errno();
    (errno != 0).then_some(errno)
}

/// An error and all its causes in one line, repeated texts left out.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let next = cause.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = cause.source();
    }
    text
}

/// The result of a pod or container operation.
pub type Result<T> = std::result::Result<T, Error>;
