//! Kills a process by pid, safely against pid reuse.

use joey_cgroup::Group;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::{Error, Result};
use crate::ids;

/// From SIGKILL to the end of a process. It needs to run for that: in a group without CPU time, or
/// in the kernel for a slow disk, it takes a while.
const KILL_GRACE: Timespec = Timespec {
    tv_sec: 60,
    tv_nsec: 0,
};

/// Sends SIGKILL to the process that has `pid` since `start_ticks` and waits for its end. A process
/// that is gone is fine.
pub(crate) async fn kill_process(pid: i32, start_ticks: u64) -> Result<()> {
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
        poll(&mut fds, Some(&KILL_GRACE))
    })
    .await
    .map_err(|_| Error::Aborted)?;
    let step = || format!("wait for the end of process {pid} after SIGKILL");
    match ended {
        Ok(1..) => Ok(()),
        Ok(0) => Err(Error::step(step(), std::io::Error::from(Errno::TIMEDOUT))),
        Err(error) => Err(Error::step(step(), error)),
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
