//! `joey-init`: PID 1 of a shared PID namespace. It reaps what is orphaned and ends on SIGTERM.
//!
//! It runs in an empty read-only root without capabilities or descriptors: what a container sees
//! through `/proc/1` must be nothing (the shim's memory and root would be the host's).

use nix::sys::signal::{SigSet, Signal};
use rustix::process::{
    DumpableBehavior, WaitOptions, set_dumpable_behavior, set_parent_process_death_signal, wait,
};

/// Runs until SIGTERM; returns the exit code.
pub fn run() -> i32 {
    if set_dumpable_behavior(DumpableBehavior::NotDumpable).is_err() {
        return 1;
    }
    // Without the shim nobody waits for the containers any more: they end with this namespace.
    if set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).is_err() {
        return 1;
    }
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT] {
        signals.add(signal);
    }
    if signals.thread_block().is_err() {
        return 1;
    }
    loop {
        while matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {}
        match signals.wait() {
            Ok(Signal::SIGTERM | Signal::SIGINT) => return 0,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return 1,
        }
    }
}
