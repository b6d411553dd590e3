//! What a shim tells unasked.

use joey_proto::shim::{AttachDropped, ExecExit, Exit, InitExit, event::Event};

/// An event of a shim.
#[derive(Debug, Clone, PartialEq)]
pub enum ShimEvent {
    /// A container ended; its exit record is written.
    Exit(Exit),
    /// A process run by `exec` ended.
    ExecExit(ExecExit),
    /// An attacher was dropped, for the reason given.
    AttachDropped(AttachDropped),
    /// The shared PID namespace's init ended, and with it every container in that namespace.
    InitExit(InitExit),
    /// The connection ended; nothing follows.
    Lost,
}

impl From<Event> for ShimEvent {
    fn from(event: Event) -> Self {
        match event {
            Event::Exit(exit) => Self::Exit(exit),
            Event::ExecExit(exit) => Self::ExecExit(exit),
            Event::AttachDropped(dropped) => Self::AttachDropped(dropped),
            Event::InitExit(exit) => Self::InitExit(exit),
        }
    }
}
