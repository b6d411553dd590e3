//! Named points in front of every change of state, at which a test kills a process or makes a step
//! fail.
//!
//! Without the feature `failpoints` [`hit`] is an empty function and nothing of this is in a
//! program. With it the environment variable [`VARIABLE`] names a [`Board`]: a file that the test
//! and all processes under test map. It is memory and not a folder, because a container's last
//! stage has changed its root and closed its descriptors, and still passes points.

#[cfg(feature = "board")]
mod board;
#[cfg(feature = "failpoints")]
mod live;

#[cfg(feature = "board")]
pub use board::{Action, Board, Passed};
#[cfg(feature = "failpoints")]
pub use live::{become_role, environment, hit};

/// Names the board.
pub const VARIABLE: &str = "JOEY_FAILPOINTS";

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `joeyd`.
    Daemon,
    /// `joey-shim`.
    Shim,
    /// What a shim forks, up to the container's program.
    Worker,
}

/// Passes a point. Named for the step that comes next: `record.rename`.
///
/// # Errors
/// None, unless a test armed the point with one.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
#[allow(clippy::inline_always, reason = "nothing of it may stay in a program")]
pub fn hit(_point: &'static str) -> std::io::Result<()> {
    Ok(())
}

/// Says what this process, and what it forks, is; a daemon need not.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
#[allow(clippy::inline_always, reason = "nothing of it may stay in a program")]
pub fn become_role(_role: Role) {}

/// What a child with an environment of its own needs of this one's.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
#[must_use]
#[allow(clippy::inline_always, reason = "nothing of it may stay in a program")]
pub fn environment() -> Option<(&'static str, std::ffi::OsString)> {
    None
}
