//! The client and a real shim, on a root file system made of busybox. Needs root.
#![allow(missing_docs, missing_debug_implementations, reason = "tests")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod bench;
mod files;
mod life;
mod pod;
mod privilege;
mod shared;
mod streams;
