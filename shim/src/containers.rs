//! A container as the shim sees it, and its end.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use joey_proto::shim::{ContainerState, Exit, StartReply, event};

use crate::cgroup;
use crate::error::{Failure, Result, Step};
use crate::oom;
use crate::records;
use crate::server::{Ended, Shim};
use crate::starts::Starting;
use crate::streams::Streams;
use crate::sys;

/// How long a process that outlives its container's init may still write to the log.
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// A container.
#[derive(Debug)]
pub struct Container {
    /// The daemon's id of it.
    pub id: String,
    /// The folders of its cgroups.
    pub cgroup_dirs: Vec<String>,
    /// Where its OOM kills are counted.
    pub oom_file: String,
    /// Their counts before it started.
    pub oom_before: oom::Before,
    /// Its init is PID 1 of a PID namespace of its own.
    pub own_pids: bool,
    /// It has a terminal.
    pub terminal: bool,
    /// Its streams.
    pub streams: Streams,
    /// A worker is at it.
    pub starting: Option<Starting>,
    /// Its init.
    pub init: Option<Init>,
    /// What was answered to Start.
    pub started: Option<StartReply>,
    /// How it ended.
    pub exit: Option<Exit>,
    /// Its streams are read until then, at most.
    pub drain_until: Option<Instant>,
}

/// A running init.
#[derive(Debug)]
pub struct Init {
    /// On the host.
    pub pid: i32,
    /// Refers to it for good; none when it ended before it was known.
    pub pidfd: Option<OwnedFd>,
}

impl Container {
    /// Whether its init has this pid.
    pub fn runs_as(&self, pid: i32) -> bool {
        self.init.as_ref().is_some_and(|init| init.pid == pid)
    }

    /// When something is to be done without any event.
    pub fn deadline(&self) -> Option<Instant> {
        let starting = self.starting.as_ref().map(|starting| starting.deadline);
        [starting, self.drain_until, self.streams.deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The running init.
    pub fn running(&self) -> Result<&Init> {
        self.init
            .as_ref()
            .filter(|_| self.started.is_some())
            .ok_or_else(|| {
                Failure::with_errno(libc::ESRCH, format!("container {} is not running", self.id))
            })
    }

    /// Sends a signal to the init, or to every process.
    pub fn signal(&self, signal: i32, all: bool) -> Result<()> {
        if all {
            cgroup::signal_all(&self.cgroup_dirs, signal);
        }
        match self.init.as_ref().and_then(|init| init.pidfd.as_ref()) {
            Some(pidfd) => match sys::pidfd_signal(pidfd.as_fd(), signal) {
                Err(error) if all && error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
                other => {
                    other.step_with(|| format!("send signal {signal} to container {}", self.id))
                }
            },
            None if all => Ok(()),
            None => Err(Failure::with_errno(
                libc::ESRCH,
                format!("container {} is not running", self.id),
            )),
        }
    }

    /// For the State request.
    pub fn state(&self) -> ContainerState {
        ContainerState {
            container_id: self.id.clone(),
            pid: self.init.as_ref().map_or(0, |init| init.pid),
            exit: self.exit.clone(),
            started: self.started.clone(),
        }
    }
}

/// CLOCK_REALTIME, ns.
pub fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

impl Shim {
    /// Finds a container by the daemon's id.
    pub fn find(&self, id: &str) -> Result<u64> {
        self.containers
            .iter()
            .find(|(_, container)| container.id == id)
            .map(|(key, _)| *key)
            .ok_or_else(|| {
                Failure::with_errno(libc::ENOENT, format!("no container {id} in this shim"))
            })
    }

    /// The container's init has ended: the log first, then the record, then the news.
    pub fn container_ended(&mut self, key: u64, ended: Ended) {
        let finished_at = now();
        // At once: who else looks after the group may remove it.
        let oom_kills = self.oom_kills_after(key);
        let Some(container) = self.containers.get_mut(&key) else {
            return;
        };
        let pid = container.init.take().map_or(0, |init| init.pid);
        if container.started.is_none() {
            // Never started: the failed Start tells.
            return;
        }
        if !container.own_pids {
            // Nothing may go on under the name of an ended container.
            cgroup::signal_all(&container.cgroup_dirs, libc::SIGKILL);
        }
        let mut dropped = Vec::new();
        container.streams.drain(&mut dropped);
        // With a PID namespace of its own every writer is dead, and what they wrote was read.
        if container.streams.has_output() && !container.own_pids {
            container.drain_until = Some(Instant::now() + DRAIN_TIME);
        } else {
            container.streams.finish();
        }
        let exit = Exit {
            container_id: container.id.clone(),
            code: ended.code,
            signal: ended.signal,
            finished_at,
            oom_kills_before: container.oom_before.own,
            oom_kills,
        };
        container.exit = Some(exit.clone());
        // A full disk must not keep the end from the daemon, which hears of it by the event too.
        drop(records::write(&self.run_dir, pid, &exit));
        self.tell_dropped(key, dropped);
        self.tell(event::Event::Exit(exit));
    }

    /// Forgets an ended container.
    pub fn delete(&mut self, id: &str) -> Result<()> {
        let Ok(key) = self.find(id) else {
            return Ok(());
        };
        if self
            .containers
            .get(&key)
            .is_some_and(|c| c.init.is_some() || c.starting.is_some())
        {
            return Err(Failure::with_errno(
                libc::EBUSY,
                format!("container {id} is running"),
            ));
        }
        let deleted = self.containers.remove(&key);
        self.deleted_oom_kills += deleted
            .and_then(|container| container.exit)
            .map_or(0, |exit| exit.oom_kills);
        let record = records::path(&self.run_dir, id);
        drop(joey_failpoint::hit("exit.remove").and_then(|()| std::fs::remove_file(record)));
        Ok(())
    }
}
