//! The pod's namespaces: made by a forked helper, held by the shim as descriptors.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use joey_proto::shim::{IdMapping, StartPod};
use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Failure, Result, Step};
use crate::report::{self, Report, Reporter, Reports};
use crate::{cgroup, privileges, sys, template};

/// How long a helper may take, seconds.
const HELPER_SECONDS: u64 = 30;

/// What the containers of the pod share.
#[derive(Debug, Default)]
pub struct Pod {
    /// The pod's user namespace.
    pub user: Option<OwnedFd>,
    /// Its network namespace.
    pub network: Option<OwnedFd>,
    /// Its IPC namespace.
    pub ipc: Option<OwnedFd>,
    /// Its UTS namespace.
    pub uts: Option<OwnedFd>,
    /// Its shared PID namespace.
    pub pid: Option<OwnedFd>,
    /// PID 1 of the shared PID namespace, on the host.
    pub init: Option<Pid>,
    /// The small mount namespace that workers copy; holds the pod's /dev/shm.
    pub template: Option<OwnedFd>,
    /// The mappings of `user`.
    pub uid_mappings: Vec<IdMapping>,
    /// The mappings of `user`.
    pub gid_mappings: Vec<IdMapping>,
    /// Bytes of /dev/shm, 0 without.
    pub shm_bytes: u64,
    /// What SELinux takes the files in /dev/shm for; empty: as any tmpfs.
    pub shm_label: String,
}

impl Pod {
    /// The host's ids of the pod's root.
    pub fn root_ids(&self) -> (u32, u32) {
        (
            host_id(&self.uid_mappings, 0),
            host_id(&self.gid_mappings, 0),
        )
    }
}

/// The host's id of a container's id; the id itself without mappings.
pub fn host_id(mappings: &[IdMapping], id: u32) -> u32 {
    mappings
        .iter()
        .find(|m| id >= m.container_id && id - m.container_id < m.size)
        .map_or(id, |m| m.host_id + (id - m.container_id))
}

/// Makes everything `request` asks for. Blocks for some milliseconds: it is a pod's first request.
pub fn start_pod(request: &StartPod) -> Result<Pod> {
    let mut pod = Pod {
        uid_mappings: request.uid_mappings.clone(),
        gid_mappings: request.gid_mappings.clone(),
        shm_bytes: request.shm_bytes,
        shm_label: request.selinux_label.clone(),
        ..Pod::default()
    };
    if !request.uid_mappings.is_empty() {
        pod.user = Some(make_user(&request.uid_mappings, &request.gid_mappings)?);
    }
    if request.new_network || request.new_ipc || request.new_uts || request.new_pid {
        make_others(request, &mut pod)?;
    }
    Ok(pod)
}

/// A user namespace with the mappings given, not held by any process.
pub fn make_user(uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd> {
    let (reporter, reports) = report::pair()?;
    let child = sys::fork(&sys::Fork::default(), || {
        let made = (|| {
            sys::unshare(libc::CLONE_NEWUSER).step("make a user namespace")?;
            let user = fs::File::open("/proc/self/ns/user").step("open the user namespace")?;
            reporter.send_fds(&Report::Fds, &[user.as_fd()])
        })();
        if let Err(failure) = made {
            reporter.send(&Report::Failed(failure));
            return 1;
        }
        // The mapping is written through this process, which is then killed.
        loop {
            rustix::event::pause();
        }
    })
    .step("fork a helper")?;
    drop(reporter);
    let made = (|| {
        reports.set_timeout(HELPER_SECONDS)?;
        let missing = || Failure::new("make a user namespace: no descriptor came");
        let user = receive(&reports)?.pop().ok_or_else(missing)?;
        let proc = format!("/proc/{}", child.as_raw_nonzero());
        write_mapping(&format!("{proc}/uid_map"), uids).step("write the uid mapping")?;
        write_mapping(&format!("{proc}/gid_map"), gids).step("write the gid mapping")?;
        Ok(user)
    })();
    kill_process(child, Signal::KILL).ok();
    made
}

fn write_mapping(path: &str, mappings: &[IdMapping]) -> std::io::Result<()> {
    let mut text = String::new();
    for mapping in mappings {
        text.push_str(&format!(
            "{} {} {}\n",
            mapping.container_id, mapping.host_id, mapping.size
        ));
    }
    joey_failpoint::hit("namespace.map")?;
    // One write: the kernel takes the whole mapping at once.
    fs::OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(text.as_bytes())
}

fn receive(reports: &Reports) -> Result<Vec<OwnedFd>> {
    match reports.next(true) {
        Some(Some((Report::Fds, fds))) => Ok(fds),
        Some(Some((Report::Failed(failure), _))) => Err(failure),
        Some(Some((other, _))) => Err(Failure::new(format!(
            "unexpected report of a helper: {other:?}"
        ))),
        Some(None) => Err(Failure::new("the helper ended without a word")),
        None => Err(Failure::with_errno(
            libc::ETIMEDOUT,
            "the helper took too long",
        )),
    }
}

fn make_others(request: &StartPod, pod: &mut Pod) -> Result<()> {
    let (reporter, reports) = report::pair()?;
    let user = pod.user.as_ref();
    // The init inherits the helper's cgroup: once in the pod's user namespace neither may enter one.
    let entry = cgroup::Entry::open(&request.cgroup_dirs)?;
    let options = sys::Fork {
        cgroup: entry.unified(),
        ..sys::Fork::default()
    };
    let helper = sys::fork(&options, || {
        match entry
            .enter()
            .and_then(|()| helper(request, user, &reporter))
        {
            Ok(()) => 0,
            Err(failure) => {
                reporter.send(&Report::Failed(failure));
                1
            }
        }
    })
    .step("fork a helper")?;
    drop(reporter);
    reports.set_timeout(HELPER_SECONDS)?;
    let collected = collect(request, pod, &reports);
    if collected.is_err() {
        kill_process(helper, Signal::KILL).ok();
        if let Some(init) = pod.init.take() {
            kill_process(init, Signal::KILL).ok();
        }
    }
    collected
}

fn collect(request: &StartPod, pod: &mut Pod, reports: &Reports) -> Result<()> {
    let mut namespaces = None;
    // With an init the helper's end is awaited: the init has executed when the pair is closed.
    while namespaces.is_none() || request.new_pid {
        match reports.next(true) {
            Some(Some((Report::Fds, fds))) => namespaces = Some(fds),
            Some(Some((Report::Pid(pid), _))) => pod.init = Pid::from_raw(pid),
            Some(Some((Report::Failed(failure), _))) => return Err(failure),
            Some(Some(_)) => {}
            Some(None) if namespaces.is_some() => break,
            Some(None) => return Err(Failure::new("the helper ended without a word")),
            None => {
                return Err(Failure::with_errno(
                    libc::ETIMEDOUT,
                    "the helper took too long",
                ));
            }
        }
    }
    let mut fds = namespaces.into_iter().flatten();
    for (wanted, slot) in [
        (request.new_network, &mut pod.network),
        (request.new_ipc, &mut pod.ipc),
        (request.new_uts, &mut pod.uts),
        (request.new_pid, &mut pod.pid),
    ] {
        if wanted {
            *slot =
                Some(fds.next().ok_or_else(|| {
                    Failure::new("a namespace is missing in the helper's report")
                })?);
        }
    }
    Ok(())
}

/// Runs in the helper: joins the user namespace, makes the others inside it, sends them.
fn helper(request: &StartPod, user: Option<&OwnedFd>, reporter: &Reporter) -> Result<()> {
    if let Some(user) = user {
        sys::setns(user.as_fd(), libc::CLONE_NEWUSER).step("join the pod's user namespace")?;
        become_root()?;
    }
    let mut flags = 0;
    let mut names = Vec::new();
    for (wanted, flag, name) in [
        (request.new_network, libc::CLONE_NEWNET, "net"),
        (request.new_ipc, libc::CLONE_NEWIPC, "ipc"),
        (request.new_uts, libc::CLONE_NEWUTS, "uts"),
        (request.new_pid, libc::CLONE_NEWPID, "pid_for_children"),
    ] {
        if wanted {
            flags |= flag;
            names.push(name);
        }
    }
    let executable = fs::File::open("/proc/self/exe").step("open the shim's own file")?;
    sys::unshare(flags).step("make the pod's namespaces")?;
    if request.new_uts && !request.hostname.is_empty() {
        rustix::system::sethostname(request.hostname.as_bytes()).step("set the host name")?;
    }
    for (key, value) in &request.sysctls {
        write_sysctl(key, value)?;
    }
    if request.new_pid {
        // pid_for_children can be opened only once the namespace has its first process.
        start_init(reporter, &executable)?;
    }
    let open = names
        .iter()
        .map(|name| {
            fs::File::open(format!("/proc/self/ns/{name}"))
                .step_with(|| format!("open the pod's {name} namespace"))
        })
        .collect::<Result<Vec<_>>>()?;
    let fds: Vec<_> = open.iter().map(AsFd::as_fd).collect();
    reporter.send_fds(&Report::Fds, &fds)
}

/// Root of the user namespace just joined.
pub fn become_root() -> Result<()> {
    rustix::thread::set_thread_groups(&[]).step("drop the supplementary groups")?;
    let (uid, gid) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid).step("become the namespace's root group")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).step("become the namespace's root")
}

fn write_sysctl(key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{}", key.replace('.', "/"));
    if key.split(['.', '/']).any(|part| part.is_empty()) {
        return Err(Failure::with_errno(
            libc::EINVAL,
            format!("set sysctl {key}: not a sysctl's name"),
        ));
    }
    joey_failpoint::hit("sysctl.write")
        .and_then(|()| fs::OpenOptions::new().write(true).open(&path))
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .step_with(|| format!("set sysctl {key}={value}"))
}

/// Forks PID 1 of the new PID namespace as the shim's child.
fn start_init(reporter: &Reporter, executable: &fs::File) -> Result<()> {
    let options = sys::Fork {
        cgroup: None,
        sibling: true,
    };
    let pid = sys::fork(&options, || {
        let failure = match become_init(reporter, executable) {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        reporter.send(&Report::Failed(failure));
        1
    })
    .step("fork the pod's init")?;
    reporter.send(&Report::Pid(pid.as_raw_nonzero().get()));
    Ok(())
}

fn become_init(reporter: &Reporter, executable: &fs::File) -> Result<std::convert::Infallible> {
    sys::unshare(libc::CLONE_NEWNS).step("make the init's mount namespace")?;
    template::empty_root()?;
    rustix::process::setsid().step("start a session")?;
    sys::reset_signals();
    sys::close_all_but(&mut [executable.as_raw_fd(), reporter.fd().as_raw_fd()]);
    sys::close_standard();
    privileges::drop_all().step("give up every privilege")?;
    Err(sys::fexecve(executable.as_fd(), c"joey-init")).step("execute the pod's init")
}
