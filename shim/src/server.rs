//! The shim's loop: one poll over signals, clients, workers and the containers' streams.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use joey_proto::shim::{Event, Reply, event, reply};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
    sockopt,
};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::containers::Container;
use crate::error::{Result, Step};
use crate::execs::ExecProcess;
use crate::namespaces::Pod;
use crate::starts::Starting;
use crate::stat;
use crate::streams::{Dropped, Part};
use crate::sys;
use crate::wire::{Conn, Gone};

/// The protocol this shim speaks; 2: a start attaches, 3: it holds sockets.
pub const PROTOCOL: u32 = 3;
const MAX_CONNECTIONS: usize = 64;

/// Whose answer goes where.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// The connection.
    pub conn: u64,
    /// The request's id.
    pub id: u64,
}

/// The shim of one pod.
#[derive(Debug)]
pub struct Shim {
    /// The pod's run folder.
    pub run_dir: PathBuf,
    /// Set by StartPod.
    pub pod: Option<Pod>,
    /// Started, running and ended containers, by a number of their own.
    pub containers: BTreeMap<u64, Container>,
    /// What the containers that were deleted had.
    pub deleted_oom_kills: u64,
    /// Processes run in containers.
    pub execs: BTreeMap<u64, ExecProcess>,
    /// Ended children that no worker has named yet, and when each was reaped: from then on its number
    /// may be another process's.
    pub unclaimed: Vec<(i32, Instant, Ended)>,
    /// Held open for the pod's life: bound sockets of its host ports. Nothing is done with them.
    pub held: Vec<OwnedFd>,
    /// The clients.
    pub conns: BTreeMap<u64, Conn>,
    /// The loop ends once this client has its reply.
    pub leaving: bool,
    last_key: u64,
}

/// How a child ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// 128 + signal when signalled.
    pub code: i32,
    /// 0 when it was none.
    pub signal: i32,
    /// It was a program of its own, not the shim's copy any more.
    pub executed: bool,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    Signals,
    Listener,
    Conn(u64),
    Start(u64),
    Exec(u64),
    Stream(u64, Part),
}

/// Runs the shim: `joey-shim POD RUN_DIR [stdin]`; with `stdin` that is the first connection.
pub fn run(args: &[String]) -> i32 {
    joey_failpoint::become_role(joey_failpoint::Role::Shim);
    let [_, _pod, run_dir, rest @ ..] = args else {
        return 2;
    };
    match prepare(run_dir, rest.first().map(String::as_str)) {
        Ok((mut shim, signals, listener)) => {
            shim.serve(&signals, &listener);
            drop(fs::remove_file(shim.run_dir.join("shim.sock")));
            0
        }
        Err(failure) => {
            drop(fs::write(
                PathBuf::from(run_dir).join("shim.error"),
                failure.message,
            ));
            1
        }
    }
}

fn prepare(run_dir: &str, inherited: Option<&str>) -> Result<(Shim, SignalFd, OwnedFd)> {
    let first = match inherited {
        Some("stdin") => {
            let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)
                .step("take the first connection")?;
            let flags = OFlags::RDWR | OFlags::CLOEXEC;
            let null = openat(CWD, "/dev/null", flags, Mode::empty()).step("open /dev/null")?;
            rustix::stdio::dup2_stdin(null).step("let go of stdin")?;
            Some(socket)
        }
        _ => None,
    };
    // Fails for a session's leader, which is what is wanted.
    rustix::process::setsid().ok();
    rustix::process::chdir("/").step("leave the working directory")?;
    rustix::process::umask(Mode::empty());
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .step("hide the memory")?;
    // Orphans of an exec in the host's PID namespace are reaped here, not by the host's init.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .step("become a subreaper")?;
    let signals = block_signals().step("block the signals")?;
    let run_dir = PathBuf::from(run_dir);
    joey_failpoint::hit("exit.folder.create").step("make the folder of exit records")?;
    fs::create_dir_all(run_dir.join("exits")).step("make the folder of exit records")?;
    let listener = bind_socket(&run_dir).step("listen on the shim's socket")?;
    let mut shim = Shim {
        run_dir,
        pod: None,
        containers: BTreeMap::new(),
        deleted_oom_kills: 0,
        execs: BTreeMap::new(),
        unclaimed: Vec::new(),
        held: Vec::new(),
        conns: BTreeMap::new(),
        leaving: false,
        last_key: 0,
    };
    if let Some(first) = first {
        let key = shim.new_key();
        shim.conns.insert(key, Conn::new(first));
    }
    Ok((shim, signals, listener))
}

fn block_signals() -> nix::Result<SignalFd> {
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGPIPE,
        Signal::SIGQUIT,
    ] {
        signals.add(signal);
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&signals), None)?;
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

fn bind_socket(run_dir: &std::path::Path) -> Result<OwnedFd> {
    let path = run_dir.join("shim.sock");
    drop(fs::remove_file(&path));
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // A path may be longer than a socket's address: go through the folder's descriptor.
    let dir = fs::File::open(run_dir)?;
    let short = format!(
        "/proc/self/fd/{}/shim.sock",
        std::os::fd::AsRawFd::as_raw_fd(&dir)
    );
    joey_failpoint::hit("shim.listen")?;
    bind(&socket, &SocketAddrUnix::new(short)?)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    listen(&socket, 16)?;
    Ok(socket)
}

impl Shim {
    /// A number that was never used before.
    pub fn new_key(&mut self) -> u64 {
        self.last_key += 1;
        self.last_key
    }

    fn serve(&mut self, signals: &SignalFd, listener: &OwnedFd) {
        while !self.leaving || self.conns.values().any(Conn::wants_write) {
            let ready = self.poll(signals.as_fd(), listener.as_fd());
            for source in ready {
                match source {
                    Source::Signals => while matches!(signals.read_signal(), Ok(Some(_))) {},
                    Source::Listener => self.accept(listener),
                    Source::Conn(key) => self.serve_conn(key),
                    Source::Start(key) => self.start_reported(key),
                    Source::Exec(key) => self.exec_reported(key),
                    Source::Stream(key, part) => self.stream_ready(key, part),
                }
            }
            // After the workers' reports, which name most of the children.
            self.reap();
            self.forget_unclaimed();
            self.expire();
            self.kill_orphans();
        }
    }

    fn poll(&self, signals: BorrowedFd<'_>, listener: BorrowedFd<'_>) -> Vec<Source> {
        let mut sources = vec![Source::Signals, Source::Listener];
        let mut fds = vec![
            PollFd::from_borrowed_fd(signals, PollFlags::IN),
            PollFd::from_borrowed_fd(listener, PollFlags::IN),
        ];
        let mut add = |source, fd, flags| {
            sources.push(source);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        for (key, conn) in &self.conns {
            let write = if conn.wants_write() {
                PollFlags::OUT
            } else {
                PollFlags::empty()
            };
            add(Source::Conn(*key), conn.fd(), PollFlags::IN | write);
        }
        for (key, container) in &self.containers {
            if let Some(starting) = &container.starting {
                add(Source::Start(*key), starting.reports.fd(), PollFlags::IN);
            }
            for (part, fd, flags) in container.streams.interests() {
                add(Source::Stream(*key, part), fd, flags);
            }
        }
        for (key, exec) in &self.execs {
            if let Some(starting) = &exec.starting {
                add(Source::Exec(*key), starting.reports.fd(), PollFlags::IN);
            }
        }
        let timeout = self.next_deadline().map(|at| {
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return Vec::new();
        }
        sources
            .into_iter()
            .zip(&fds)
            .filter(|(_, fd)| !fd.revents().is_empty())
            .map(|(source, _)| source)
            .collect()
    }

    fn next_deadline(&self) -> Option<Instant> {
        let containers = self.containers.values().filter_map(Container::deadline);
        let execs = self
            .execs
            .values()
            .filter_map(|exec| Some(exec.starting.as_ref()?.deadline));
        containers.chain(execs).min()
    }

    fn expire(&mut self) {
        let now = Instant::now();
        self.expire_starts(now);
        self.expire_execs(now);
        let keys: Vec<u64> = self.containers.keys().copied().collect();
        for key in keys {
            let Some(container) = self.containers.get_mut(&key) else {
                continue;
            };
            let mut dropped = Vec::new();
            container.streams.expire(now, &mut dropped);
            if container.drain_until.is_some_and(|until| now >= until) {
                container.drain_until = None;
                container.streams.finish();
            }
            self.tell_dropped(key, dropped);
        }
    }

    fn accept(&mut self, listener: &OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        while let Ok(socket) = accept_with(listener, flags) {
            let root = sockopt::socket_peercred(&socket).is_ok_and(|peer| peer.uid.is_root());
            if root && self.conns.len() < MAX_CONNECTIONS {
                let key = self.new_key();
                self.conns.insert(key, Conn::new(socket));
            }
        }
    }

    fn serve_conn(&mut self, key: u64) {
        let Some(conn) = self.conns.get_mut(&key) else {
            return;
        };
        let read = conn.read().and_then(|()| conn.flush());
        // What came before the end is still served: a Kill must not be lost.
        loop {
            match self.conns.get_mut(&key).map(Conn::next) {
                Some(Ok(Some(request))) => self.serve_request(key, request),
                Some(Ok(None)) => break,
                Some(Err(Gone)) => {
                    self.conns.remove(&key);
                    return;
                }
                None => return,
            }
        }
        if read.is_err() {
            self.conns.remove(&key);
        }
    }

    /// Answers a request.
    pub fn reply(&mut self, caller: Caller, result: reply::Result, fds: Vec<OwnedFd>) {
        let reply = Reply {
            id: caller.id,
            result: Some(result),
        };
        let Some(conn) = self.conns.get_mut(&caller.conn) else {
            return;
        };
        if conn.send(&reply, fds).is_err() {
            self.conns.remove(&caller.conn);
        }
    }

    /// Tells every client.
    pub fn tell(&mut self, event: event::Event) {
        let reply = Reply {
            id: 0,
            result: Some(reply::Result::Event(Event { event: Some(event) })),
        };
        self.conns
            .retain(|_, conn| conn.send(&reply, Vec::new()).is_ok());
    }

    /// Tells that attachers were dropped.
    pub fn tell_dropped(&mut self, key: u64, dropped: Vec<Dropped>) {
        let Some(container) = self.containers.get(&key) else {
            return;
        };
        let id = container.id.clone();
        for Dropped {
            id: attach_id,
            reason,
        } in dropped
        {
            self.tell(event::Event::AttachDropped(
                joey_proto::shim::AttachDropped {
                    container_id: id.clone(),
                    reason,
                    attach_id,
                },
            ));
        }
    }

    fn stream_ready(&mut self, key: u64, part: Part) {
        let Some(container) = self.containers.get_mut(&key) else {
            return;
        };
        let mut dropped = Vec::new();
        container.streams.ready(part, &mut dropped);
        self.tell_dropped(key, dropped);
    }

    /// Takes every child that has ended.
    pub fn reap(&mut self) {
        while let Some(pid) = sys::ended_child() {
            // Once it is reaped nobody can tell any more.
            let executed =
                self.starting_since().is_none() || stat::of(raw(pid)).is_none_or(|it| it.executed);
            let Ok(Some((_, status))) = waitpid(Some(pid), WaitOptions::NOHANG) else {
                break;
            };
            let signal = status.terminating_signal().unwrap_or(0);
            let code = status.exit_status().unwrap_or(128 + signal);
            let ended = Ended {
                code,
                signal,
                executed,
            };
            self.child_ended(pid, ended);
        }
    }

    /// When the oldest of the starts under way began.
    fn starting_since(&self) -> Option<Instant> {
        let containers = self.containers.values().filter_map(|c| c.starting.as_ref());
        let execs = self.execs.values().filter_map(|e| e.starting.as_ref());
        containers.chain(execs).map(|starting| starting.begun).min()
    }

    /// How a child of a start ended, where it was reaped since that began.
    pub fn reaped(&self, pid: i32, starting: &Starting) -> Option<Ended> {
        let of_it =
            |(other, at, _): &&(i32, Instant, Ended)| *other == pid && *at >= starting.begun;
        self.unclaimed.iter().find(of_it).map(|(.., ended)| *ended)
    }

    /// Whether a child of a start has become a program, also where it has ended since.
    pub fn has_executed(&self, pid: i32, starting: &Starting) -> bool {
        match self.reaped(pid, starting) {
            Some(ended) => ended.executed,
            None => stat::of(pid).is_none_or(|stat| stat.executed),
        }
    }

    fn forget_unclaimed(&mut self) {
        match self.starting_since() {
            Some(begun) => self.unclaimed.retain(|(_, at, _)| *at >= begun),
            None => self.unclaimed.clear(),
        }
    }

    fn child_ended(&mut self, pid: Pid, ended: Ended) {
        let raw = raw(pid);
        if let Some(key) = self
            .containers
            .iter()
            .find(|(_, c)| c.runs_as(raw))
            .map(|(key, _)| *key)
        {
            self.container_ended(key, ended);
        } else if let Some(key) = self
            .execs
            .iter()
            .find(|(_, exec)| exec.runs_as(raw))
            .map(|(key, _)| *key)
        {
            self.exec_ended(key, ended);
        } else if self.pod.as_ref().is_some_and(|pod| pod.init == Some(pid)) {
            if let Some(pod) = &mut self.pod {
                pod.init = None;
            }
            self.tell(event::Event::InitExit(joey_proto::shim::InitExit {
                code: ended.code,
            }));
        } else {
            self.unclaimed.push((raw, Instant::now(), ended));
            self.worker_ended(pid, ended);
        }
    }
}

fn raw(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}
