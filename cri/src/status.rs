//! Errors to gRPC statuses, in one place.
//!
//! The kubelet acts on few codes: NotFound between a list and a status is skipped, DeadlineExceeded
//! ends a probe, Unimplemented switches a feature off. The message is the whole chain of causes and
//! ends with the operation's id; some prefixes of it have a meaning to the kubelet and stay first.

use std::error::Error as StdError;

use joey_runtime::error::{chain, refusal};
use rustix::io::Errno;
use tonic::{Code, Status};

/// What the kubelet looks for at the start of the message when an image volume can't be mounted.
pub(crate) const IMAGE_VOLUME_FAILED: &str = "ImageVolumeMountFailed";
/// The same for a registry that could not be reached.
const REGISTRY_UNAVAILABLE: &str = "RegistryUnavailable";
/// The same for an image whose signature is not accepted.
const SIGNATURE_FAILED: &str = "SignatureValidationFailed";

/// Why an RPC failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A field of the request is missing or can't be right.
    #[error("{0}")]
    Invalid(String),
    /// What the request names does not exist.
    #[error("{kind} {id:?} not found")]
    NotFound { kind: &'static str, id: String },
    /// Joey can't do this yet.
    #[error("{0}")]
    Unimplemented(&'static str),
    /// An image volume whose image is not there.
    #[error("{IMAGE_VOLUME_FAILED}: image {image:?} of the mount at {path:?} not found")]
    NoImageForMount { image: String, path: String },
    /// A pod or container operation.
    #[error(transparent)]
    Runtime(#[from] joey_runtime::Error),
    /// A pull.
    #[error(transparent)]
    Pull(#[from] joey_image::PullError),
    /// The removal of an image.
    #[error(transparent)]
    RemoveImage(#[from] joey_image::RemoveError),
    /// The streaming server has no URL for the request.
    #[error(transparent)]
    Url(#[from] joey_streaming::UrlError),
    /// The task of a call died; a defect.
    #[error("the operation ended without a result")]
    Aborted,
}

/// The result of an RPC.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// A field that can't be right.
pub(crate) fn invalid(what: impl Into<String>) -> Failure {
    Failure::Invalid(what.into())
}

impl Failure {
    /// The status a client gets.
    pub(crate) fn to_status(&self, operation: &str) -> Status {
        Status::new(
            self.code(),
            format!("{} (operation {operation})", self.message()),
        )
    }

    /// The whole chain of causes, with a prefix that means something to the kubelet put first.
    pub(crate) fn message(&self) -> String {
        let text = chain(self);
        let prefix = match self {
            Self::Pull(_) => [REGISTRY_UNAVAILABLE, SIGNATURE_FAILED]
                .into_iter()
                .find(|it| text.contains(it)),
            Self::Runtime(_) => Some(IMAGE_VOLUME_FAILED).filter(|it| text.contains(it)),
            _ => None,
        };
        match prefix {
            Some(prefix) if !text.starts_with(prefix) => format!("{prefix}: {text}"),
            _ => text,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Invalid(_) => Code::InvalidArgument,
            Self::NotFound { .. } | Self::NoImageForMount { .. } => Code::NotFound,
            Self::Unimplemented(_) => Code::Unimplemented,
            Self::Runtime(error) => runtime_code(error),
            Self::Pull(error) => pull_code(error.kind()),
            Self::RemoveImage(error) => remove_image_code(error),
            Self::Url(error) => url_code(error),
            Self::Aborted => Code::Internal,
        }
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
        E::Step { source, .. } => cause_code(source.as_ref()),
        E::File { source, .. } => io_code(source),
        E::Joined(error) => runtime_code(error),
        E::Aborted => Code::Internal,
    }
}

/// The code of a step is that of its cause, but "not found" is only said of what the request names:
/// the kubelet takes it for "gone" and goes on.
fn cause_code(cause: &(dyn StdError + 'static)) -> Code {
    let mut next = Some(cause);
    while let Some(error) = next {
        let code = if let Some(error) = error.downcast_ref::<joey_runtime::Error>() {
            runtime_code(error)
        } else if let Some(error) = error.downcast_ref::<std::io::Error>() {
            io_code(error)
        } else if let Some(errno) = refusal(error) {
            refusal_code(&std::io::Error::from_raw_os_error(errno))
        } else {
            Code::Internal
        };
        match code {
            Code::Internal => next = error.source(),
            Code::NotFound => return Code::FailedPrecondition,
            code => return code,
        }
    }
    Code::Internal
}

/// The kubelet looks at the message's prefix only where the code is Unknown.
fn pull_code(kind: joey_image::PullErrorKind) -> Code {
    use joey_image::PullErrorKind as K;
    match kind {
        K::InvalidRequest => Code::InvalidArgument,
        K::NotFound => Code::NotFound,
        K::Denied => Code::PermissionDenied,
        K::RateLimited | K::NoSpace => Code::ResourceExhausted,
        K::UnusableImage => Code::FailedPrecondition,
        K::Unavailable | K::Other => Code::Unknown,
    }
}

fn remove_image_code(error: &joey_image::RemoveError) -> Code {
    use joey_image::RemoveError as E;
    match error {
        E::Ambiguous(_) => Code::InvalidArgument,
        E::Record { source, .. } => io_code(source),
        E::Aborted => Code::Internal,
    }
}

fn url_code(error: &joey_streaming::UrlError) -> Code {
    use joey_streaming::UrlError as E;
    match error {
        E::MissingContainerId | E::MissingPodId | E::TtyWithStderr | E::NoStream | E::BadPorts => {
            Code::InvalidArgument
        }
        E::TooManyPending { .. } => Code::ResourceExhausted,
    }
}

/// What a container's own files do not allow, such as a program that is not there, is no fault of
/// the node. containerd answers Unknown; the kubelet makes no difference.
fn refusal_code(error: &std::io::Error) -> Code {
    use std::io::ErrorKind as K;
    match error.kind() {
        K::NotFound | K::PermissionDenied | K::NotADirectory | K::IsADirectory => {
            Code::FailedPrecondition
        }
        _ if Errno::from_io_error(error) == Some(Errno::NOEXEC) => Code::FailedPrecondition,
        _ => io_code(error),
    }
}

fn io_code(error: &std::io::Error) -> Code {
    use std::io::ErrorKind as K;
    match error.kind() {
        K::StorageFull | K::QuotaExceeded => Code::ResourceExhausted,
        K::TimedOut => Code::DeadlineExceeded,
        _ => Code::Internal,
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
