//! Seccomp profiles, compiled to the BPF programs that a container's process loads before its exec.
//!
//! Compilation is done here and not by libseccomp: a program of ranges is searched in a few steps,
//! is made in a fraction of a millisecond for three architectures, has as many actions and errnos as
//! the profile wants, answers ENOSYS for system calls newer than the profile, and its size is
//! bounded whatever the profile says. libseccomp is what the tests compare it with.

mod arch;
mod bpf;
mod cache;
mod compile;
mod decide;
mod profile;
mod text;

pub use cache::Cache;
pub use compile::{CompileError, Compiled, compile};
pub use profile::{ParseError, Profile};
