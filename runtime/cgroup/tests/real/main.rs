//! Real groups of this host, under a parent of each test's own. Skipped, with a line that says so,
//! where the process may not make any.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod limits;
mod processes;
mod support;
mod usage;
