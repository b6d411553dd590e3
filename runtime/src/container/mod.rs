//! The life of a container.
//!
//! ```text
//!                         ┌── a failed start ─────────────────────┐
//! (none) ── create ──► Created ── start ──► Running ── end ──► Exited ── remove ──► (none)
//!                         └◄─ renew (never by CRI) ───────────────┘
//! ```

mod attach;
mod create;
mod exec;
mod exit;
mod kill;
mod oom;
mod reason;
mod remove;
mod renew;
mod start;
mod stop;

pub use attach::{AttachSession, Detachment};
pub(crate) use create::{IMAGE_VOLUME_ERROR, held_images};
pub use exec::{ExecConfig, ExecOutput, ExecSession};
pub(crate) use kill::{kill_group, kill_process};
pub(crate) use reason::SIGKILL;
pub(crate) use remove::delete_in_background;
pub(crate) use start::{START_FAILED_CODE, started_from};
