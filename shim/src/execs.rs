//! Exec: a process in a running container, made by a forked worker.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use joey_proto::shim::{Exec, ExecExit, ExecReply, event, reply};

use crate::cgroup::Entry;
use crate::error::{Failure, Result, Step};
use crate::report::{self, Report};
use crate::server::{Caller, Ended, Shim};
use crate::starts::{Starting, own};
use crate::sys;
use crate::worker::{self, Stdio};

/// A process run in a container.
#[derive(Debug)]
pub struct ExecProcess {
    /// A worker is at it.
    pub starting: Option<Starting>,
    /// The connection that asked. The process ends with it: nobody else has its streams.
    pub owner: u64,
    /// Its pid on the host, and a descriptor of it unless it had ended by then.
    pub process: Option<(i32, Option<OwnedFd>)>,
}

impl ExecProcess {
    /// Whether it has this pid.
    pub fn runs_as(&self, pid: i32) -> bool {
        self.process
            .as_ref()
            .is_some_and(|(other, _)| *other == pid)
    }

    /// Signals the process and its group.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let Some((pid, pidfd)) = &self.process else {
            return Err(Failure::with_errno(
                libc::ESRCH,
                "the process is not running",
            ));
        };
        // It leads a group of its own, and is not reaped: the number is still its own.
        drop(sys::kill(-pid, signal));
        let Some(pidfd) = pidfd else { return Ok(()) };
        match sys::pidfd_signal(pidfd.as_fd(), signal) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other.step_with(|| format!("send signal {signal} to a process")),
        }
    }
}

impl Shim {
    /// Forks the worker; the reply comes when it has reported.
    pub fn exec(&mut self, caller: Caller, request: Exec) -> Result<()> {
        let stdio = Stdio {
            stdin: self.take_fd(caller, request.stdin)?,
            stdout: self.take_fd(caller, request.stdout)?,
            stderr: self.take_fd(caller, request.stderr)?,
        };
        let key = self.find(&request.container_id)?;
        let init = &self.containers[&key].running()?.pidfd;
        let init = init
            .as_ref()
            .ok_or_else(|| Failure::with_errno(libc::ESRCH, "the container has ended"))?;
        let pod = self
            .pod
            .as_ref()
            .ok_or_else(|| Failure::new("the pod was not started"))?;
        for fd in [&stdio.stdin, &stdio.stdout, &stdio.stderr]
            .into_iter()
            .flatten()
        {
            // What is no pipe cannot be given away; the process can use it nevertheless.
            drop(own(fd, pod));
        }
        let in_user_namespace = pod.user.is_some();
        let entry = Entry::open(&request.cgroup_dirs)?;
        let (reporter, reports) = report::pair()?;
        let options = sys::Fork {
            cgroup: entry.unified(),
            sibling: false,
        };
        let worker = sys::fork(&options, || {
            match worker::exec(request, init, in_user_namespace, &entry, &stdio, reporter) {
                Ok(()) => 0,
                Err((reporter, failure)) => {
                    reporter.send(&Report::Failed(failure));
                    1
                }
            }
        })
        .step("fork a worker")?;
        let starting = Some(Starting::new(caller, worker, reports));
        let exec_id = self.new_key();
        self.execs.insert(
            exec_id,
            ExecProcess {
                starting,
                owner: caller.conn,
                process: None,
            },
        );
        Ok(())
    }

    /// A worker has reported.
    pub fn exec_reported(&mut self, exec_id: u64) {
        let Some(exec) = self.execs.get_mut(&exec_id) else {
            return;
        };
        let Some(starting) = &mut exec.starting else {
            return;
        };
        if !starting.receive() {
            return;
        }
        let Some(starting) = exec.starting.take() else {
            return;
        };
        self.exec_finished(exec_id, starting);
    }

    fn exec_finished(&mut self, exec_id: u64, mut starting: Starting) {
        let caller = starting.caller;
        let pid = match (&starting.failure, starting.pid, &starting.user) {
            // Its last report comes before the program does.
            (None, Some(pid), Some(_)) if self.has_executed(pid, &starting) => pid,
            _ => {
                self.kill_starting(&starting);
                self.execs.remove(&exec_id);
                let failure = match starting.failure.take() {
                    Some(failure) => failure,
                    None => self.cut_off("exec", &starting),
                };
                return self.refuse(caller, failure);
            }
        };
        let master = starting.master.take();
        let reply = ExecReply {
            exec_id,
            pid,
            has_master: master.is_some(),
        };
        self.reply(
            caller,
            reply::Result::Exec(reply),
            master.into_iter().collect(),
        );
        if let Some(ended) = self.reaped(pid, &starting) {
            return self.exec_ended(exec_id, ended);
        }
        let pidfd = sys::pidfd(pid).ok().flatten();
        if let Some(exec) = self.execs.get_mut(&exec_id) {
            exec.process = Some((pid, pidfd));
        }
    }

    /// The process has ended.
    pub fn exec_ended(&mut self, exec_id: u64, ended: Ended) {
        self.execs.remove(&exec_id);
        self.tell(event::Event::ExecExit(ExecExit {
            exec_id,
            code: ended.code,
            signal: ended.signal,
        }));
    }

    /// Kills the processes whose clients are gone.
    pub fn kill_orphans(&self) {
        for exec in self.execs.values() {
            if exec.process.is_some() && !self.conns.contains_key(&exec.owner) {
                drop(exec.signal(libc::SIGKILL));
            }
        }
    }

    /// Gives up workers that take too long.
    pub fn expire_execs(&mut self, now: Instant) {
        let late = self.execs.iter().filter(|(_, exec)| {
            exec.starting
                .as_ref()
                .is_some_and(|starting| now >= starting.deadline)
        });
        let late: Vec<u64> = late.map(|(key, _)| *key).collect();
        for exec_id in late {
            let starting = self
                .execs
                .get_mut(&exec_id)
                .and_then(|exec| exec.starting.take());
            if let Some(mut starting) = starting {
                starting.failure = Some(Failure::with_errno(
                    libc::ETIMEDOUT,
                    "exec: the worker took too long",
                ));
                self.exec_finished(exec_id, starting);
            }
        }
    }
}
