//! The verbs of the protocol.

use std::os::fd::{AsFd, OwnedFd};

use joey_proto::shim::{
    Attach, AttachReply, Empty, Error, HelloReply, HoldSockets, Kill, NamespacesReply, Request,
    Resize, StartPod, StartPodReply, StateReply, reply, request::Call,
};

use crate::error::{Failure, Result, Step};
use crate::namespaces;
use crate::server::{Caller, PROTOCOL, Shim};
use crate::streams::{Ends, Patience};
use crate::sys;
use crate::wire::Conn;

/// An answer, with its descriptors; none yet when a worker is to give it.
type Answer = Result<Option<(reply::Result, Vec<OwnedFd>)>>;

fn done() -> Answer {
    Ok(Some((reply::Result::Done(Empty {}), Vec::new())))
}

impl Shim {
    /// Serves one request; nothing here waits for a container.
    pub fn serve_request(&mut self, conn: u64, request: Request) {
        let caller = Caller {
            conn,
            id: request.id,
        };
        let answer = match request.call {
            Some(call) => self.call(caller, call),
            None => Err(Failure::with_errno(
                libc::ENOSYS,
                "this shim does not know the request",
            )),
        };
        match answer {
            Ok(Some((result, fds))) => self.reply(caller, result, fds),
            Ok(None) => {}
            Err(failure) => self.refuse(caller, failure),
        }
    }

    /// Answers with a failure.
    pub fn refuse(&mut self, caller: Caller, failure: Failure) {
        let Failure { errno, message } = failure;
        self.reply(
            caller,
            reply::Result::Error(Error { errno, message }),
            Vec::new(),
        );
    }

    fn call(&mut self, caller: Caller, call: Call) -> Answer {
        match call {
            Call::Hello(_) => Ok(Some((reply::Result::Hello(self.hello()), Vec::new()))),
            Call::StartPod(request) => self.start_pod(caller, &request),
            Call::Start(request) => self.start(caller, request).map(|()| None),
            Call::Exec(request) => self.exec(caller, request).map(|()| None),
            Call::Kill(request) => self.kill(&request).and_then(|()| done()),
            Call::Attach(request) => self.attach(caller, &request),
            Call::Resize(request) => self.resize(&request).and_then(|()| done()),
            Call::ReopenLog(request) => {
                self.reopen_log(&request.container_id).and_then(|()| done())
            }
            Call::CloseStdin(request) => {
                let key = self.find(&request.container_id)?;
                if let Some(container) = self.containers.get_mut(&key) {
                    container.streams.close_stdin();
                }
                done()
            }
            Call::State(_) => {
                let all = self.containers.values();
                let (starting, known): (Vec<_>, Vec<_>) = all.partition(|c| c.starting.is_some());
                let containers = known.iter().map(|container| container.state()).collect();
                let starting = starting.iter().map(|c| c.id.clone()).collect();
                let state = StateReply {
                    containers,
                    starting,
                };
                Ok(Some((reply::Result::State(state), Vec::new())))
            }
            Call::Delete(request) => self.delete(&request.container_id).and_then(|()| done()),
            Call::Shutdown(request) => self.shutdown(request.force).and_then(|()| done()),
            Call::Namespaces(_) => {
                let fds = self.network_fd()?;
                let reply = NamespacesReply {
                    has_network: !fds.is_empty(),
                };
                Ok(Some((reply::Result::Namespaces(reply), fds)))
            }
            Call::HoldSockets(request) => self.hold_sockets(caller, &request).and_then(|()| done()),
        }
    }

    fn start_pod(&mut self, caller: Caller, request: &StartPod) -> Answer {
        if self.pod.is_some() {
            return Err(Failure::with_errno(
                libc::EEXIST,
                "the pod was started before",
            ));
        }
        let pod =
            namespaces::start_pod(request).step_with(|| format!("start pod {}", request.pod_id))?;
        let init_pid = pod.init.map_or(0, |pid| pid.as_raw_nonzero().get());
        self.pod = Some(pod);
        let fds = self.network_fd()?;
        let reply = StartPodReply {
            has_network: !fds.is_empty(),
            init_pid,
        };
        self.reply(caller, reply::Result::StartPod(reply), fds);
        // While the daemon sets up the network. A failure is told by the first Start.
        drop(self.ensure_template());
        Ok(None)
    }

    fn network_fd(&self) -> Result<Vec<OwnedFd>> {
        let network = self.pod.iter().filter_map(|pod| pod.network.as_ref());
        network
            .map(|fd| {
                fd.try_clone()
                    .step("copy the network namespace's descriptor")
            })
            .collect()
    }

    /// The next descriptor that came with a request, where one is wanted.
    pub fn take_fd(&mut self, caller: Caller, wanted: bool) -> Result<Option<OwnedFd>> {
        if !wanted {
            return Ok(None);
        }
        let fd = self.conns.get_mut(&caller.conn).and_then(Conn::take_fd);
        fd.map(Some).ok_or_else(|| {
            Failure::with_errno(libc::EINVAL, "a descriptor of the request is missing")
        })
    }

    fn hold_sockets(&mut self, caller: Caller, request: &HoldSockets) -> Result<()> {
        for _ in 0..request.count {
            let socket = self.take_fd(caller, true)?;
            self.held.extend(socket);
        }
        Ok(())
    }

    fn kill(&mut self, request: &Kill) -> Result<()> {
        let signal = i32::try_from(request.signal)
            .ok()
            .filter(|signal| (0..=64).contains(signal))
            .ok_or_else(|| {
                Failure::with_errno(libc::EINVAL, format!("no signal {}", request.signal))
            })?;
        if request.exec_id != 0 {
            let missing = || Failure::with_errno(libc::ESRCH, "the process has ended");
            return self
                .execs
                .get(&request.exec_id)
                .ok_or_else(missing)?
                .signal(signal);
        }
        let key = self.find(&request.container_id)?;
        self.containers[&key].signal(signal, request.all)
    }

    /// The descriptors of an attachment that came with a request: stdin, stdout, stderr.
    pub fn take_ends(&mut self, caller: Caller, wanted: [bool; 3]) -> Result<Ends> {
        Ok(Ends {
            stdin: self.take_fd(caller, wanted[0])?,
            stdout: self.take_fd(caller, wanted[1])?,
            stderr: self.take_fd(caller, wanted[2])?,
        })
    }

    fn attach(&mut self, caller: Caller, request: &Attach) -> Answer {
        let wanted = [request.stdin, request.stdout, request.stderr];
        let ends = self.take_ends(caller, wanted)?;
        let key = self.find(&request.container_id)?;
        let attach_id = self.new_key();
        let missing = || {
            Failure::with_errno(
                libc::ENOENT,
                format!("no container {}", request.container_id),
            )
        };
        let container = self.containers.get_mut(&key).ok_or_else(missing)?;
        container.running()?;
        if request.stdin && !container.streams.has_input() {
            let message = format!("container {} has no open stdin", container.id);
            return Err(Failure::with_errno(libc::EINVAL, message));
        }
        let terminal = container.terminal;
        // First the answer: output may follow at once.
        let reply = AttachReply {
            terminal,
            attach_id,
        };
        container
            .streams
            .attach(attach_id, ends, Patience::Impatient);
        Ok(Some((reply::Result::Attach(reply), Vec::new())))
    }

    fn resize(&mut self, request: &Resize) -> Result<()> {
        let key = self.find(&request.container_id)?;
        let size = |value: u32| {
            u16::try_from(value)
                .map_err(|_| Failure::with_errno(libc::EINVAL, format!("no terminal has {value}")))
        };
        let master = self.containers[&key].streams.master.as_ref();
        let no_terminal = || Failure::with_errno(libc::ENOTTY, "the container has no terminal");
        let master = master.ok_or_else(no_terminal)?;
        sys::resize(master.as_fd(), size(request.columns)?, size(request.rows)?)
            .step("resize the terminal")
    }

    fn reopen_log(&mut self, id: &str) -> Result<()> {
        let key = self.find(id)?;
        self.containers[&key].running()?;
        match self
            .containers
            .get_mut(&key)
            .and_then(|container| container.streams.log.as_mut())
        {
            Some(log) => log.reopen().step("reopen the log"),
            None => Ok(()),
        }
    }

    fn shutdown(&mut self, force: bool) -> Result<()> {
        let running = self
            .containers
            .values()
            .filter(|c| c.init.is_some() || c.starting.is_some());
        let running: Vec<String> = running.map(|container| container.id.clone()).collect();
        if !running.is_empty() && !force {
            let message = format!("containers are running: {}", running.join(", "));
            return Err(Failure::with_errno(libc::EBUSY, message));
        }
        for container in self.containers.values() {
            if let Some(starting) = &container.starting {
                self.kill_starting(starting);
            }
            if container.init.is_some() || container.starting.is_some() {
                drop(container.signal(libc::SIGKILL, true));
            }
        }
        for exec in self.execs.values() {
            drop(exec.signal(libc::SIGKILL));
        }
        if let Some(init) = self.pod.as_ref().and_then(|pod| pod.init) {
            rustix::process::kill_process(init, rustix::process::Signal::KILL).ok();
        }
        self.leaving = true;
        Ok(())
    }

    fn hello(&self) -> HelloReply {
        HelloReply {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: rustix::process::getpid().as_raw_nonzero().get(),
            held_sockets: u32::try_from(self.held.len()).unwrap_or(u32::MAX),
        }
    }
}
