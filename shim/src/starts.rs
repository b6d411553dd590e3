//! Start: a forked worker makes the container, the loop goes on and takes its reports.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use joey_proto::shim::{NamespaceMode, ResolvedUser, Start, StartReply, reply};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use crate::cgroup::{self, Entry};
use crate::containers::{Container, Init, now};
use crate::error::{Failure, Result, Step};
use crate::logs::{LogFile, Rotation, Stream};
use crate::namespaces::Pod;
use crate::report::{self, Report, Reports};
use crate::server::{Caller, Shim};
use crate::streams::{Ends, Patience, Streams, TerminalPlan};
use crate::sys;
use crate::template;
use crate::worker::{self, Stdio};

/// How long a worker may take.
pub const WORKER_TIME: Duration = Duration::from_secs(120);

/// A worker at work.
#[derive(Debug)]
pub struct Starting {
    /// Who asked.
    pub caller: Caller,
    /// The worker.
    pub worker: Pid,
    /// Its reports.
    pub reports: Reports,
    /// When it is given up.
    pub deadline: Instant,
    /// The process that it made.
    pub pid: Option<i32>,
    /// Whom that runs as.
    pub user: Option<ResolvedUser>,
    /// Its terminal.
    pub master: Option<OwnedFd>,
    /// What could only be done in part.
    pub notes: Vec<String>,
    /// Why it failed.
    pub failure: Option<Failure>,
}

impl Starting {
    /// A worker just forked.
    pub fn new(caller: Caller, worker: Pid, reports: Reports) -> Self {
        let deadline = Instant::now() + WORKER_TIME;
        Self {
            caller,
            worker,
            reports,
            deadline,
            pid: None,
            user: None,
            master: None,
            notes: Vec::new(),
            failure: None,
        }
    }

    /// Takes the reports that are there; true at their end.
    pub fn receive(&mut self) -> bool {
        loop {
            match self.reports.next(false) {
                None => return false,
                Some(None) => return true,
                Some(Some((report, mut fds))) => match report {
                    Report::Pid(pid) => self.pid = Some(pid),
                    Report::User { uid, gid, groups } => {
                        let groups = groups.into_iter().map(i64::from).collect();
                        self.user = Some(ResolvedUser {
                            uid: uid.into(),
                            gid: gid.into(),
                            groups,
                        });
                    }
                    Report::Fds => self.master = fds.pop(),
                    Report::Note(note) => self.notes.push(note),
                    // The container's own process knows more than the worker, and is first.
                    Report::Failed(failure) => {
                        self.failure.get_or_insert(failure);
                    }
                },
            }
        }
    }

    /// Kills the worker, and the process that it named.
    pub fn kill(&self) {
        drop(sys::kill(self.worker.as_raw_nonzero().get(), libc::SIGKILL));
        if let Some(pid) = self.pid {
            drop(sys::kill(pid, libc::SIGKILL));
        }
    }
}

/// Makes a pipe for the container and gives its ends to the root of its user namespace, which can
/// then give them to the container's user.
fn pipe(pod: &Pod) -> Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).step("make a pipe")?;
    own(&read, pod)?;
    Ok((read, write))
}

/// Gives a descriptor to the pod's root.
pub fn own(fd: &OwnedFd, pod: &Pod) -> Result<()> {
    if pod.user.is_none() {
        return Ok(());
    }
    let (uid, gid) = pod.root_ids();
    let (uid, gid) = (
        rustix::fs::Uid::from_raw(uid),
        rustix::fs::Gid::from_raw(gid),
    );
    rustix::fs::fchown(fd, Some(uid), Some(gid)).step("give a pipe to the pod's root")
}

fn open_streams(
    request: &Start,
    pod: &Pod,
    attacher: Option<(u64, Ends)>,
) -> Result<(Streams, Stdio)> {
    let mut streams = Streams::default();
    if !request.log_path.is_empty() {
        let rotation = (request.log_max_bytes > 0).then_some(Rotation {
            max_bytes: request.log_max_bytes,
            max_files: request.log_max_files,
        });
        let log = LogFile::open(PathBuf::from(&request.log_path), rotation);
        streams.log = Some(log.step_with(|| format!("open the log {}", request.log_path))?);
    }
    let mut stdio = Stdio::default();
    if request
        .process
        .as_ref()
        .is_some_and(|process| process.terminal)
    {
        streams.terminal = Some(TerminalPlan {
            input: request.stdin.then_some(request.stdin_once),
            attacher,
        });
        return Ok((streams, stdio));
    }
    for (stream, slot) in [
        (Stream::Stdout, &mut stdio.stdout),
        (Stream::Stderr, &mut stdio.stderr),
    ] {
        let (read, write) = pipe(pod)?;
        streams.add_output(read, stream);
        *slot = Some(write);
    }
    if request.stdin {
        let (read, write) = pipe(pod)?;
        streams.set_input(write, request.stdin_once);
        stdio.stdin = Some(read);
    }
    if let Some((id, ends)) = attacher {
        streams.attach(id, ends, Patience::Patient);
    }
    Ok((streams, stdio))
}

impl Shim {
    /// Forks the worker; the reply comes when it has reported.
    pub fn start(&mut self, caller: Caller, request: Start) -> Result<()> {
        let wanted = [
            request.attach_stdin,
            request.attach_stdout,
            request.attach_stderr,
        ];
        let ends = self.take_ends(caller, wanted)?;
        if self.find(&request.container_id).is_ok() {
            return Err(Failure::with_errno(
                libc::EEXIST,
                format!("container {} exists", request.container_id),
            ));
        }
        let target_pid = self.target_namespace(&request)?;
        self.ensure_template()?;
        let attach_id = self.new_key();
        let attacher = wanted.contains(&true).then_some((attach_id, ends));
        let pod = self
            .pod
            .as_ref()
            .ok_or_else(|| Failure::new("the pod was not started"))?;
        let (streams, stdio) = open_streams(&request, pod, attacher)?;
        let entry = Entry::open(&request.cgroup_dirs)?;
        let mut container = Container {
            id: request.container_id.clone(),
            cgroup_dirs: request.cgroup_dirs.clone(),
            oom_file: request.oom_file.clone(),
            oom_before: self.oom_kills_before(Path::new(&request.oom_file)),
            own_pids: request.pid_mode() == NamespaceMode::Private,
            terminal: request
                .process
                .as_ref()
                .is_some_and(|process| process.terminal),
            streams,
            starting: None,
            init: None,
            started: None,
            exit: None,
            drain_until: None,
        };
        let (reporter, reports) = report::pair()?;
        let options = sys::Fork {
            cgroup: entry.unified(),
            sibling: false,
        };
        let worker = sys::fork(&options, || {
            match worker::start(request, pod, target_pid.as_ref(), &entry, &stdio, reporter) {
                Ok(()) => 0,
                Err((reporter, failure)) => {
                    reporter.send(&Report::Failed(failure));
                    1
                }
            }
        })
        .step("fork a worker")?;
        container.starting = Some(Starting::new(caller, worker, reports));
        let key = self.new_key();
        self.containers.insert(key, container);
        Ok(())
    }

    fn target_namespace(&self, request: &Start) -> Result<Option<OwnedFd>> {
        if request.pid_mode() != NamespaceMode::Target {
            return Ok(None);
        }
        let key = self.find(&request.target_container)?;
        let pid = self.containers[&key].running()?.pid;
        // Only this process reaps: the pid cannot have been given to another meanwhile.
        let file = File::open(format!("/proc/{pid}/ns/pid"))
            .step("open the target container's PID namespace")?;
        Ok(Some(file.into()))
    }

    /// Makes the small mount namespace that workers copy, once.
    pub fn ensure_template(&mut self) -> Result<()> {
        let pod = self
            .pod
            .as_mut()
            .ok_or_else(|| Failure::new("the pod was not started"))?;
        if pod.template.is_none() {
            pod.template = Some(template::make(pod)?);
        }
        Ok(())
    }

    /// A worker has reported.
    pub fn start_reported(&mut self, key: u64) {
        let Some(container) = self.containers.get_mut(&key) else {
            return;
        };
        let Some(starting) = &mut container.starting else {
            return;
        };
        if !starting.receive() {
            return;
        }
        let Some(starting) = container.starting.take() else {
            return;
        };
        match self.start_finished(key, &starting) {
            Ok(reply) => self.reply(starting.caller, reply::Result::Start(reply), Vec::new()),
            Err(failure) => self.start_failed(key, &starting, failure),
        }
        // The init may have been reaped before it was known.
        let ended = self.containers.get(&key).and_then(|container| {
            let pid = container.init.as_ref()?.pid;
            self.unclaimed
                .iter()
                .find(|(other, _)| *other == pid)
                .map(|(_, ended)| *ended)
        });
        if let Some(ended) = ended {
            self.container_ended(key, ended);
        }
        sys::trim_heap();
    }

    fn start_finished(&mut self, key: u64, starting: &Starting) -> Result<StartReply> {
        if let Some(Failure { errno, message }) = &starting.failure {
            return Err(Failure::with_errno(*errno, message.clone()));
        }
        let (Some(pid), Some(user)) = (starting.pid, &starting.user) else {
            return Err(self.without_a_word("start the container", starting));
        };
        let container = self
            .containers
            .get_mut(&key)
            .ok_or_else(|| Failure::new("the container is gone"))?;
        if let Some(plan) = container.streams.terminal.take() {
            let master = starting
                .master
                .as_ref()
                .ok_or_else(|| Failure::new("the container sent no terminal"))?;
            let copy = || master.try_clone().step("copy the terminal");
            if let Some(once) = plan.input {
                container.streams.set_input(copy()?, once);
            }
            container.streams.add_output(copy()?, Stream::Stdout);
            container.streams.master = Some(copy()?);
            if let Some((id, ends)) = plan.attacher {
                container.streams.attach(id, ends, Patience::Patient);
            }
        }
        let reaped = self.unclaimed.iter().any(|(other, _)| *other == pid);
        let pidfd = if reaped {
            None
        } else {
            sys::pidfd(pid).step("open the init's pidfd")?
        };
        let reply = StartReply {
            pid,
            user: Some(user.clone()),
            started_at: now(),
            start_time_ticks: start_ticks(pid).unwrap_or(0),
            notes: starting.notes.clone(),
        };
        container.started = Some(reply.clone());
        container.init = Some(Init { pid, pidfd });
        Ok(reply)
    }

    /// A worker, or what it made, ended and told nothing: how did it end?
    pub fn without_a_word(&mut self, step: &str, starting: &Starting) -> Failure {
        self.reap();
        let mut message = format!("{step}: the process ended without a word");
        for (what, pid) in [
            ("worker", Some(starting.worker.as_raw_nonzero().get())),
            ("process", starting.pid),
        ] {
            if let Some((_, ended)) = self.unclaimed.iter().find(|(other, _)| Some(*other) == pid) {
                message.push_str(&format!(" (the {what}'s exit code is {})", ended.code));
            }
        }
        Failure::new(message)
    }

    fn start_failed(&mut self, key: u64, starting: &Starting, failure: Failure) {
        starting.kill();
        if let Some(container) = self.containers.remove(&key) {
            // Whatever the worker made is in the container's cgroup, named or not.
            cgroup::clear(&container.cgroup_dirs);
        }
        self.refuse(starting.caller, failure);
    }

    /// Gives up workers that take too long.
    pub fn expire_starts(&mut self, now: Instant) {
        let late = self.containers.iter().filter(|(_, container)| {
            container
                .starting
                .as_ref()
                .is_some_and(|starting| now >= starting.deadline)
        });
        let late: Vec<u64> = late.map(|(key, _)| *key).collect();
        for key in late {
            let starting = self
                .containers
                .get_mut(&key)
                .and_then(|container| container.starting.take());
            if let Some(starting) = starting {
                let failure = Failure::with_errno(
                    libc::ETIMEDOUT,
                    "start the container: the worker took too long",
                );
                self.start_failed(key, &starting, failure);
            }
        }
    }
}

/// Field 22 of /proc/PID/stat.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}
