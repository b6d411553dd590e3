//! Kills a process by pid, safely against pid reuse.

use std::time::Duration;

use joey_cgroup::Group;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::{Error, Result};
use crate::ids;

/// Sends SIGKILL to the process that has `pid` since `start_ticks` and waits for its end, at most
/// `grace`. A process that is gone is fine.
pub(crate) async fn kill_process(pid: i32, start_ticks: u64, grace: Duration) -> Result<()> {
    let Some(raw) = Pid::from_raw(pid) else {
        return Ok(());
    };
    let pidfd = match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        // EINVAL: before 6.14 for a process that is just being reaped.
        Err(Errno::SRCH | Errno::INVAL) => return Ok(()),
        Err(error) => return Err(Error::step(format!("open process {pid}"), error)),
    };
    // Checked after the pidfd is open: from here on it can't be another process.
    if ids::start_ticks(pid) != Some(start_ticks) {
        return Ok(());
    }
    match pidfd_send_signal(&pidfd, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => return Err(Error::step(format!("kill process {pid}"), error)),
    }
    let ended = tokio::task::spawn_blocking(move || {
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        let limit = Timespec {
            tv_sec: i64::try_from(grace.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(grace.subsec_nanos()),
        };
        poll(&mut fds, Some(&limit))
    })
    .await;
    match ended {
        Ok(Ok(1..)) => Ok(()),
        _ => Err(Error::invalid(format!("process {pid} outlives SIGKILL"))),
    }
}

/// Kills every process of a group; killing v1 groups can take several passes, with pauses.
pub(crate) async fn kill_group(group: &Group) -> Result<()> {
    let group = group.clone();
    tokio::task::spawn_blocking(move || group.kill_all())
        .await
        .map_err(|_| Error::Aborted)?
        .map_err(|e| Error::step("kill the processes of a cgroup", e))
}
