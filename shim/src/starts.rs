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
use crate::server::{Caller, Ended, Shim};
use crate::stat;
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
    /// When it was forked.
    pub begun: Instant,
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
        let begun = Instant::now();
        Self {
            caller,
            worker,
            reports,
            begun,
            deadline: begun + WORKER_TIME,
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
                    // A container may trace what enters it, and speak in its place.
                    Report::Pid(pid) if self.pid.is_none() && is_child(pid) => {
                        self.pid = Some(pid);
                    }
                    Report::Pid(_) => {}
                    Report::User {
                        pid,
                        uid,
                        gid,
                        groups,
                    } => {
                        // Also where the worker was killed before it could name it.
                        if is_child(pid) {
                            self.pid = Some(pid);
                        }
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

    /// The worker, and the process that it named.
    fn children(&self) -> impl Iterator<Item = (&'static str, i32)> {
        let worker = ("worker", self.worker.as_raw_nonzero().get());
        std::iter::once(worker).chain(self.pid.map(|pid| ("process", pid)))
    }
}

/// What is gone already can't be anybody else's either.
fn is_child(pid: i32) -> bool {
    let own = std::process::id().cast_signed();
    pid > 1 && stat::of(pid).is_none_or(|stat| stat.parent == own)
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
        let init = self.containers.get(&key).and_then(|it| it.init.as_ref());
        let ended = init.and_then(|init| self.reaped(init.pid, &starting));
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
            return Err(self.cut_off("start the container", starting));
        };
        // Its last report comes before the program does.
        if !self.has_executed(pid, starting) {
            return Err(self.cut_off("start the container", starting));
        }
        let reaped = self.reaped(pid, starting).is_some();
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
        let pidfd = if reaped {
            None
        } else {
            sys::pidfd(pid).step("open the init's pidfd")?
        };
        let reply = StartReply {
            pid,
            user: Some(user.clone()),
            started_at: now(),
            start_time_ticks: stat::of(pid).map_or(0, |stat| stat.start_ticks),
            notes: starting.notes.clone(),
        };
        container.started = Some(reply.clone());
        container.init = Some(Init { pid, pidfd });
        Ok(reply)
    }

    /// A worker, or what it made, ended before there was a program, and told nothing: how?
    pub fn cut_off(&mut self, step: &str, starting: &Starting) -> Failure {
        self.reap();
        let mut message = format!("{step}: the process ended before its program ran");
        for (what, pid) in starting.children() {
            if let Some(ended) = self.reaped(pid, starting) {
                message.push_str(&format!(" (the {what}'s exit code is {})", ended.code));
            }
        }
        Failure::new(message)
    }

    /// Kills what a start made, unless it was reaped: then its number may be another process's.
    pub fn kill_starting(&self, starting: &Starting) {
        for (_, pid) in starting.children() {
            if self.reaped(pid, starting).is_none() {
                drop(sys::kill(pid, libc::SIGKILL));
            }
        }
    }

    /// A worker has ended. One that failed or was killed leaves a process that waits for it.
    pub fn worker_ended(&mut self, worker: Pid, ended: Ended) {
        let mut containers = self.containers.iter();
        let is_its = |starting: &Starting| starting.worker == worker;
        let found = containers.find(|(_, it)| it.starting.as_ref().is_some_and(is_its));
        let Some(key) = found.map(|(key, _)| *key) else {
            return;
        };
        // It may have told all before.
        self.start_reported(key);
        let starting = self.containers.get_mut(&key).and_then(|container| {
            let failed = |starting: &mut Starting| ended.code != 0 || starting.failure.is_some();
            container.starting.take_if(failed)
        });
        if let Some(mut starting) = starting {
            let failure = starting.failure.take();
            let failure = failure.unwrap_or_else(|| self.cut_off("start the container", &starting));
            self.start_failed(key, &starting, failure);
        }
    }

    fn start_failed(&mut self, key: u64, starting: &Starting, failure: Failure) {
        self.kill_starting(starting);
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
