//! Starts the shims of pods and speaks their protocol.
//!
//! One connection per pod carries every call, multiplexed by id; the shim's events come on it too.
//! Each call has a deadline: a hung shim never hangs the daemon.
#![forbid(unsafe_code)]

mod binary;
mod connection;
mod error;
mod exec;
mod exit_record;
mod frames;
mod shim;
mod spawn;

pub use binary::ShimBinary;
pub use connection::{Events, ShimEvent};
pub use error::CallError;
pub use exec::ExecHandle;
pub use exit_record::{ExitRecordError, read_exit_record};
pub use shim::Shim;
