//! Errors of Joey's own API to gRPC statuses, in one place.

use joey_image::{CommitError, PullError, PullErrorKind, RemoveError};
use joey_runtime::error::chain;
use joey_shim_client::ShimError;
use rustix::io::Errno;
use thiserror::Error;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// The metadata that tells `joey run` and `joey exec` which code to exit with.
const EXIT_CODE: &str = "joey-exit-code";
/// How the shim begins the message of a program that can't be executed.
const EXEC_STEP: &str = "exec: ";
/// As shells have it: found but not to be executed.
const NOT_EXECUTABLE: i32 = 126;
/// As shells have it: not found.
const NOT_FOUND: i32 = 127;

/// Why a call failed.
#[derive(Debug, Error)]
pub enum Failure {
    /// A field of the request can't be right.
    #[error("{0}")]
    Invalid(String),
    /// What the request names does not exist.
    #[error("no such {kind}: {name}")]
    NotFound {
        /// "container", "image".
        kind: &'static str,
        /// As the request has it.
        name: String,
    },
    /// A prefix of more than one id.
    #[error("{0:?} is the beginning of several ids")]
    Ambiguous(String),
    /// The name is taken.
    #[error("the name {name:?} is taken by container {id}")]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        id: String,
    },
    /// The name is that of a container which is being made.
    #[error("the name {0:?} is taken by a container that is being made")]
    NameReserved(String),
    /// Somebody needs it.
    #[error("{0}")]
    InUse(String),
    /// Its state does not allow it.
    #[error("{0}")]
    WrongState(String),
    /// A file of Joey's.
    #[error("{action} {path}")]
    File {
        /// "read", "create" …
        action: &'static str,
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The shim let go of a client.
    #[error("detached: {0}")]
    Detached(String),
    /// A system call on a stream or a process.
    #[error("{0}")]
    System(&'static str, #[source] std::io::Error),
    /// A process did not start.
    #[error(transparent)]
    NotStarted(joey_runtime::Error),
    /// The runtime's own.
    #[error(transparent)]
    Runtime(#[from] joey_runtime::Error),
    /// A pull.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// The removal of an image's tag.
    #[error("remove the tag")]
    Untag(#[from] CommitError),
    /// The removal of an image.
    #[error(transparent)]
    RemoveImage(#[from] RemoveError),
    /// The client's stream.
    #[error("the client's stream broke off: {}", .0.message())]
    Client(#[source] Box<Status>),
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let mut status = Status::new(code(&failure), chain(&failure));
        if let Failure::NotStarted(error) = &failure
            && let Some(exit) = exit_code(error)
        {
            status
                .metadata_mut()
                .insert(EXIT_CODE, MetadataValue::from(exit));
        }
        status
    }
}

fn code(failure: &Failure) -> Code {
    match failure {
        Failure::Invalid(_) | Failure::Ambiguous(_) => Code::InvalidArgument,
        Failure::NotFound { .. } => Code::NotFound,
        Failure::NameTaken { .. } | Failure::NameReserved(_) => Code::AlreadyExists,
        Failure::InUse(_) | Failure::WrongState(_) => Code::FailedPrecondition,
        Failure::Detached(_) => Code::Aborted,
        Failure::File { .. } | Failure::System(..) => Code::Internal,
        Failure::NotStarted(error) if exit_code(error).is_some() => Code::FailedPrecondition,
        Failure::Runtime(error) | Failure::NotStarted(error) => runtime_code(error),
        Failure::Pull(error) => pull_code(error.kind()),
        Failure::Untag(_) => Code::Internal,
        Failure::RemoveImage(error) => match error {
            RemoveError::Ambiguous(_) => Code::InvalidArgument,
            RemoveError::Record { .. } | RemoveError::Aborted => Code::Internal,
        },
        Failure::Client(_) => Code::Cancelled,
    }
}

fn runtime_code(error: &joey_runtime::Error) -> Code {
    use joey_runtime::Error as E;
    match error {
        E::NotFound { .. } => Code::NotFound,
        E::Invalid { .. } => Code::InvalidArgument,
        E::WrongState { .. } | E::Unsupported { .. } | E::InUse { .. } => Code::FailedPrecondition,
        E::NameTaken { .. } => Code::AlreadyExists,
        E::TimedOut { .. } => Code::DeadlineExceeded,
        E::Exhausted { .. } => Code::ResourceExhausted,
        E::Step { .. } | E::File { .. } | E::Aborted => Code::Internal,
        E::Joined(error) => runtime_code(error),
    }
}

fn pull_code(kind: PullErrorKind) -> Code {
    match kind {
        PullErrorKind::InvalidRequest => Code::InvalidArgument,
        PullErrorKind::NotFound => Code::NotFound,
        PullErrorKind::Denied => Code::PermissionDenied,
        PullErrorKind::RateLimited | PullErrorKind::NoSpace => Code::ResourceExhausted,
        PullErrorKind::Unavailable => Code::Unavailable,
        PullErrorKind::UnusableImage => Code::FailedPrecondition,
        PullErrorKind::Other => Code::Internal,
    }
}

/// The code a shell would exit with, where the program itself is at fault.
fn exit_code(error: &joey_runtime::Error) -> Option<i32> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(ShimError::Refused { errno, message, .. }) = error.downcast_ref() {
            let program = message.contains(EXEC_STEP);
            return match Errno::from_raw_os_error(*errno) {
                Errno::NOENT | Errno::NOTDIR if program => Some(NOT_FOUND),
                Errno::ACCESS | Errno::NOEXEC | Errno::ISDIR if program => Some(NOT_EXECUTABLE),
                _ => None,
            };
        }
        next = error.source();
    }
    None
}
