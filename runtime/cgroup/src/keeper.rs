//! A sleeping process that holds a new systemd scope open until its container is inside.

use std::fs;
use std::io;
use std::os::fd::AsFd;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The process, so that a reused id is not mistaken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Keeper {
    pid: i32,
    /// Field 22 of `/proc/PID/stat`.
    start_ticks: u64,
}

impl Keeper {
    /// Forks it. It is reaped by a task of the current tokio runtime, or by init after a restart.
    pub(crate) fn start() -> io::Result<Self> {
        let pid = fork()?;
        let keeper = Self {
            pid,
            start_ticks: start_ticks(pid).unwrap_or(0),
        };
        if let Err(error) = keeper.reap_later() {
            keeper.end();
            return Err(error);
        }
        Ok(keeper)
    }

    fn reap_later(self) -> io::Result<()> {
        let pid = Pid::from_raw(self.pid).ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        // SAFETY: the descriptor is owned by the AsyncFd and not replaced, so it stays open and the
        // same until both are dropped together.
        let watched = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE)? };
        tokio::spawn(async move {
            if watched.readable().await.is_ok() {
                let id = WaitId::PidFd(watched.get_ref().as_fd());
                // Nothing is to be learned from its status.
                rustix::process::waitid(id, WaitIdOptions::EXITED).ok();
            }
        });
        Ok(())
    }

    pub(crate) fn pid(self) -> u32 {
        self.pid.cast_unsigned()
    }

    /// Ends it, if it still is the same process.
    pub(crate) fn end(self) {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return;
        };
        // The descriptor pins the process, then its start time is compared.
        let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else {
            return;
        };
        if start_ticks(self.pid) == Some(self.start_ticks) {
            rustix::process::pidfd_send_signal(&pidfd, Signal::KILL).ok();
        }
    }
}

/// No signal may reach the child while it has the daemon's handlers: they write into pipes that it
/// shares with the daemon.
fn fork() -> io::Result<i32> {
    joey_failpoint::hit("process.fork")?;
    // SAFETY: the sets are initialized by the calls they are passed to, and the child calls only
    // async-signal-safe functions before it is ended by a signal.
    unsafe {
        let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let pid = libc::fork();
        let failure = io::Error::last_os_error();
        if pid == 0 {
            sleep_until_killed();
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        if pid < 0 { Err(failure) } else { Ok(pid) }
    }
}

/// The child: no signal handlers, no descriptors, not readable by others, out of the daemon's
/// session.
fn sleep_until_killed() -> ! {
    // SAFETY: plain system calls with constant arguments and a set that is initialized by the call
    // it is passed to; the memory of the parent is not touched.
    unsafe {
        // The kernel's sigaction, all zero: the default. The C library's call keeps its own signals
        // from being changed.
        let default = [0u64; 4];
        for signal in 1..=64i64 {
            let nothing = std::ptr::null_mut::<u64>();
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                &raw const default,
                nothing,
                size_of::<u64>(),
            );
        }
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        libc::syscall(libc::SYS_close_range, 0u32, u32::MAX, 0u32);
        libc::prctl(libc::PR_SET_DUMPABLE, 0);
        libc::prctl(libc::PR_SET_NAME, c"joey-keeper".as_ptr());
        libc::setsid();
        loop {
            libc::pause();
        }
    }
}

fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; field 3 comes after the last one.
    let (_, after) = stat.rsplit_once(") ")?;
    after.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_keeper_has_no_signal_handlers_and_blocks_nothing() {
        let _handler = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup());
        let keeper = Keeper::start().unwrap();
        let ours = fs::read_to_string("/proc/thread-self/status").unwrap();
        assert!(ours.contains("SigBlk:\t0000000000000000\n"), "{ours}");
        let mut status = String::new();
        for _ in 0..500 {
            status = fs::read_to_string(format!("/proc/{}/status", keeper.pid)).unwrap();
            if status.starts_with("Name:\tjoey-keeper\n") {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        for set in ["SigBlk", "SigIgn", "SigCgt"] {
            let line = format!("{set}:\t0000000000000000\n");
            assert!(status.contains(&line), "{status}");
        }
        keeper.end();
    }

    #[tokio::test]
    async fn a_keeper_lives_until_it_is_ended_and_is_reaped() {
        let keeper = Keeper::start().unwrap();
        let stat = std::path::PathBuf::from(format!("/proc/{}/stat", keeper.pid));
        assert!(stat.exists());
        let other = Keeper {
            start_ticks: keeper.start_ticks + 1,
            ..keeper
        };
        other.end();
        assert_eq!(start_ticks(keeper.pid), Some(keeper.start_ticks));
        keeper.end();
        for _ in 0..500 {
            if !stat.exists() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("the keeper was not reaped");
    }
}
