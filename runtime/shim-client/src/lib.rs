//! The daemon's side of a pod's shim: starting it, finding it again, and its verbs as methods.

mod binary;
mod error;
mod event;
mod link;
mod record;
mod shim;

pub use binary::{ShimBinary, ShimBinaryError};
pub use error::ShimError;
pub use event::ShimEvent;
pub use record::{ExitRecord, ExitRecordError, read_exit_record};
pub use shim::{AttachStreams, Attached, ExecStreams, Executed, PROTOCOL, Shim, StartedPod};

/// The messages of the protocol, used in the methods' arguments and results.
pub use joey_proto::shim as proto;
