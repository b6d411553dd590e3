//! What a forked worker does: every side effect of making a process in a container dies with it.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use joey_proto::shim::{Exec, Process, Start};
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::notify_socket::NotifySocket;
use libcontainer::syscall::syscall::SyscallType;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};

use crate::cgroup::{self, Entry};
use crate::error::{Failure, Result, Step};
use crate::inside::CgroupTrees;
use crate::namespaces::{Pod, become_root};
use crate::report::{Report, Reporter};
use crate::rootfs::{self, Source};
use crate::spec::{self, CgroupMount, Prepared};
use crate::stage::{self, Final, Init, Stage};
use crate::sys::{self, MountChange};
use crate::template::{self, attach, clone_tree};

/// The container's ends of its pipes; what is missing is /dev/null.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Standard input.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
}

impl Stdio {
    fn fds(&self) -> impl Iterator<Item = RawFd> {
        [&self.stdin, &self.stdout, &self.stderr]
            .into_iter()
            .flatten()
            .map(AsRawFd::as_raw_fd)
    }

    /// Makes them this process's standard descriptors.
    fn apply(&self) -> Result<()> {
        let null = openat(
            CWD,
            "/dev/null",
            OFlags::RDWR | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .step("open /dev/null")?;
        rustix::stdio::dup2_stdin(self.stdin.as_ref().unwrap_or(&null)).step("set up stdin")?;
        rustix::stdio::dup2_stdout(self.stdout.as_ref().unwrap_or(&null)).step("set up stdout")?;
        rustix::stdio::dup2_stderr(self.stderr.as_ref().unwrap_or(&null)).step("set up stderr")
    }
}

/// The places a worker uses in its own mount namespace.
struct Places {
    work: PathBuf,
    rootfs: PathBuf,
    image: PathBuf,
}

/// Makes and starts a container. Runs in the forked worker.
pub fn start(
    request: Start,
    pod: &Pod,
    target_pid: Option<&OwnedFd>,
    entry: &Entry,
    stdio: &Stdio,
    reporter: Reporter,
) -> std::result::Result<(), (Reporter, Failure)> {
    let held = [
        &pod.user,
        &pod.network,
        &pod.ipc,
        &pod.uts,
        &pod.pid,
        &pod.template,
    ];
    let mut keep: Vec<RawFd> = held.into_iter().flatten().map(AsRawFd::as_raw_fd).collect();
    keep.extend(target_pid.map(AsRawFd::as_raw_fd));
    keep.extend(entry.fds());
    keep.extend(stdio.fds());
    keep.push(reporter.fd().as_raw_fd());
    sys::close_all_but(&mut keep);
    let made = prepare(&request, pod, target_pid, entry, stdio, &reporter);
    let (prepared, places, init) = match made {
        Ok(made) => made,
        Err(failure) => return Err((reporter, failure)),
    };
    let process = request.process.unwrap_or_default();
    let stage = Rc::new(Stage {
        process,
        reporter,
        init: Some(init),
        size: terminal_size(request.columns, request.rows),
    });
    let made = run_libcontainer(
        &request.container_id,
        &prepared,
        &places,
        Final(Rc::clone(&stage)),
    );
    let failed = |failure| {
        stage.fail(failure);
        Ok(())
    };
    made.or_else(failed)
}

fn prepare(
    request: &Start,
    pod: &Pod,
    target_pid: Option<&OwnedFd>,
    entry: &Entry,
    stdio: &Stdio,
    reporter: &Reporter,
) -> Result<(Prepared, Places, Init)> {
    sys::worker_signals();
    entry.enter()?;
    stdio.apply()?;
    let process = request
        .process
        .as_ref()
        .ok_or_else(|| Failure::new("no process was asked for"))?;
    limits(process, reporter)?;
    rustix::thread::set_thread_groups(&[]).step("drop the supplementary groups")?;

    // In the host's mount namespace.
    let rootfs = request
        .rootfs
        .as_ref()
        .ok_or_else(|| Failure::new("no root file system was asked for"))?;
    let tree = rootfs::mount_rootfs(rootfs, pod)?;
    let mut sources = rootfs::open_volumes(&request.binds, pod)?;
    let rootfs_path = if request.rootfs_path.is_empty() {
        template::ROOTFS
    } else {
        &request.rootfs_path
    };
    let mut prepared = spec::prepare(request, pod, target_pid, Path::new(rootfs_path))?;
    let cgroups = prepared
        .cgroup
        .as_ref()
        .map(|mount| cgroup_trees(&request.cgroup_dirs, mount))
        .transpose()
        .step("copy the container's cgroups")?;

    // In the worker's own.
    let template = pod
        .template
        .as_ref()
        .ok_or_else(|| Failure::new("the pod was not started"))?;
    let places = if prepared.needs_host_tree {
        fetch_shm(&mut sources, template)?;
        host_tree(rootfs_path)?
    } else {
        spec::set_root(&mut prepared.spec, Path::new(template::ROOTFS))?;

        small_tree(template)?
    };
    attach(tree.as_fd(), CWD, &places.rootfs.to_string_lossy())
        .step("attach the root file system")?;
    refuse_linked_mount_points(&places.rootfs)?;
    let volumes = rootfs::finish_volumes(&request.binds, sources, &places.image.to_string_lossy())?;
    let init = Init {
        volumes,
        cgroups,
        masks: std::mem::take(&mut prepared.masks),
        read_only: rootfs.readonly,
    };
    Ok((prepared, places, init))
}

/// Libcontainer makes links and nodes beneath these by paths that it would follow on the host.
fn refuse_linked_mount_points(rootfs: &Path) -> Result<()> {
    for name in ["dev", "proc", "sys"] {
        if rootfs.join(name).is_symlink() {
            let message = format!("/{name} of the image is a symbolic link");
            return Err(Failure::with_errno(libc::EPERM, message));
        }
    }
    Ok(())
}

fn small_tree(template: &OwnedFd) -> Result<Places> {
    sys::setns(template.as_fd(), libc::CLONE_NEWNS).step("enter the small mount namespace")?;
    sys::unshare(libc::CLONE_NEWNS).step("copy the small mount namespace")?;
    let work = template::tmpfs(&[("size", "4m"), ("mode", "0700")])?;
    attach(work.as_fd(), CWD, template::WORK).step("attach the work folder")?;
    Ok(Places {
        work: template::WORK.into(),
        rootfs: template::ROOTFS.into(),
        image: template::IMAGE.into(),
    })
}

/// With the host's mounts, as hooks and bind mounts of the spec need them. A tmpfs hides the
/// host's cgroups from libcontainer, and holds the worker's files.
fn host_tree(rootfs_path: &str) -> Result<Places> {
    const CGROUPS: &str = "/sys/fs/cgroup";
    sys::unshare(libc::CLONE_NEWNS).step("copy the mount namespace")?;
    joey_failpoint::hit("mount.change").step("keep mounts from the host")?;
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
    .step("keep mounts from the host")?;
    while unmount(CGROUPS, UnmountFlags::DETACH).is_ok() {}
    let work = template::tmpfs(&[("size", "4m"), ("mode", "0700")])?;
    attach(work.as_fd(), CWD, CGROUPS).step("attach the work folder")?;
    let places = Places {
        work: Path::new(CGROUPS).join("work"),
        rootfs: rootfs_path.into(),
        image: Path::new(CGROUPS).join("image"),
    };
    for dir in [&places.work, &places.rootfs, &places.image] {
        fs::create_dir_all(dir).step_with(|| format!("make {}", dir.display()))?;
    }
    Ok(places)
}

fn fetch_shm(sources: &mut [Source], template: &OwnedFd) -> Result<()> {
    if !sources.iter().any(|source| matches!(source, Source::Shm)) {
        return Ok(());
    }
    let host = fs::File::open("/proc/self/ns/mnt").step("open the mount namespace")?;
    sys::setns(template.as_fd(), libc::CLONE_NEWNS).step("enter the small mount namespace")?;
    for source in sources
        .iter_mut()
        .filter(|source| matches!(source, Source::Shm))
    {
        *source = Source::Tree(
            clone_tree(CWD, template::SHM, false).step("copy the pod's shared memory")?,
        );
    }
    sys::setns(host.as_fd(), libc::CLONE_NEWNS).step("return to the host's mount namespace")
}

fn cgroup_trees(dirs: &[String], mount: &CgroupMount) -> Result<CgroupTrees> {
    let mut trees = Vec::new();
    for dir in dirs {
        let unified = cgroup::is_unified(Path::new(dir))?;
        // Programs that find a unified hierarchy take the node for one of cgroup v2, with the
        // controllers there. So runc shows none beside those of v1.
        if unified && dirs.len() > 1 {
            continue;
        }
        let tree = clone_tree(CWD, dir, false).step_with(|| format!("open {dir}"))?;
        let mut change = MountChange {
            set: libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC,
            propagation: libc::MS_PRIVATE,
            ..MountChange::default()
        };
        if !mount.writable {
            change.set |= libc::MOUNT_ATTR_RDONLY;
        }
        sys::mount_setattr(tree.as_fd(), &change).step_with(|| format!("restrict {dir}"))?;
        if unified {
            trees.push((String::new(), tree));
        } else {
            let name = Path::new(dir)
                .strip_prefix("/sys/fs/cgroup")
                .ok()
                .and_then(|rest| rest.components().next());
            let name =
                name.ok_or_else(|| Failure::new(format!("{dir} is not beneath /sys/fs/cgroup")))?;
            trees.push((name.as_os_str().to_string_lossy().into_owned(), tree));
        }
    }
    Ok(CgroupTrees {
        destination: mount.destination.to_string_lossy().into_owned(),
        trees,
    })
}

/// What is inherited, and needs the host's privileges to be raised.
fn limits(process: &Process, reporter: &Reporter) -> Result<()> {
    if process.has_oom_score_adj {
        let path = "/proc/self/oom_score_adj";
        let wanted = process.oom_score_adj;
        if let Err(error) = fs::write(path, wanted.to_string()) {
            if error.raw_os_error() != Some(libc::EACCES) {
                return Err(error).step_with(|| format!("set oom_score_adj {wanted}"));
            }
            reporter.send(&Report::Note(format!(
                "oom_score_adj {wanted} is below the runtime's own, which it keeps"
            )));
        }
    }
    for limit in &process.rlimits {
        let number = stage::rlimit_number(limit)?;
        let (soft, hard) = sys::get_rlimit(number).step("read the rlimits")?;
        if limit.hard > hard && sys::set_rlimit(number, soft, limit.hard).is_err() {
            reporter.send(&Report::Note(format!(
                "{} {} is above the runtime's own {hard}",
                limit.r#type, limit.hard
            )));
        }
    }
    Ok(())
}

fn run_libcontainer(id: &str, prepared: &Prepared, places: &Places, executor: Final) -> Result<()> {
    let bundle = places.work.join("bundle");
    let root = places.work.join("state");
    for dir in [&bundle, &root] {
        fs::create_dir(dir).step_with(|| format!("make {}", dir.display()))?;
    }
    let config = serde_json::to_vec(&prepared.spec).map_err(|error| Failure::from_chain(&error))?;
    joey_failpoint::hit("spec.write")
        .and_then(|()| fs::write(bundle.join("config.json"), config))
        .step("write the container's spec")?;
    let stage = Rc::clone(&executor.0);
    let build = || {
        ContainerBuilder::new(id.to_owned(), SyscallType::Linux)
            .with_root_path(&root)?
            .with_executor(executor)
            .as_init(&bundle)
            .with_systemd(false)
            .as_sibling(true)
            .build()
    };
    let mut container = build()
        .map_err(|error| Failure::from_chain(&error))
        .step("create the container")?;
    let pid = container
        .pid()
        .ok_or_else(|| Failure::new("create the container: it has no process"))?;
    stage.reporter.send(&Report::Pid(pid.as_raw()));
    // Only the container's processes keep its pipes open.
    Stdio::default().apply()?;
    if prepared.spec.hooks().is_some() {
        return container
            .start()
            .map_err(|error| Failure::from_chain(&error))
            .step("start the container");
    }
    NotifySocket::new(root.join(id).join("notify.sock"))
        .notify_container_start()
        .map_err(|error| Failure::from_chain(&error))
        .step("start the container")
}

/// Makes a process in a running container. Runs in the forked worker.
pub fn exec(
    request: Exec,
    init: &OwnedFd,
    in_user_namespace: bool,
    entry: &Entry,
    stdio: &Stdio,
    reporter: Reporter,
) -> std::result::Result<(), (Reporter, Failure)> {
    let mut keep = vec![reporter.fd().as_raw_fd(), init.as_raw_fd()];
    keep.extend(entry.fds());
    keep.extend(stdio.fds());
    sys::close_all_but(&mut keep);
    let process = request.process.unwrap_or_default();
    if let Err(failure) = join(&process, init, in_user_namespace, entry, stdio, &reporter) {
        return Err((reporter, failure));
    }
    let stage = Stage {
        process,
        reporter,
        init: None,
        size: terminal_size(request.columns, request.rows),
    };
    let forked = sys::fork(
        &sys::Fork {
            cgroup: None,
            sibling: true,
        },
        || {
            let outcome = rustix::process::setsid()
                .step("start a session")
                .and_then(|_| stage.run());
            match outcome {
                Ok(never) => match never {},
                Err(failure) => stage.fail(failure),
            }
            1
        },
    );
    match forked {
        Ok(pid) => stage
            .reporter
            .send(&Report::Pid(pid.as_raw_nonzero().get())),
        Err(error) => stage.fail(Failure::from(error)),
    }
    Ok(())
}

fn join(
    process: &Process,
    init: &OwnedFd,
    in_user_namespace: bool,
    entry: &Entry,
    stdio: &Stdio,
    reporter: &Reporter,
) -> Result<()> {
    sys::worker_signals();
    entry.enter()?;
    stdio.apply()?;
    limits(process, reporter)?;
    let mut flags = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    if in_user_namespace {
        flags |= libc::CLONE_NEWUSER;
    }
    // Nothing of the host is left to be reached through this process (CVE-2016-9962, CVE-2024-21626).
    let mut keep = vec![reporter.fd().as_raw_fd(), init.as_raw_fd()];
    sys::close_all_but(&mut keep);
    sys::setns(init.as_fd(), flags).step("join the container's namespaces")?;
    if in_user_namespace {
        become_root()?;
    }
    Ok(())
}

/// Columns and rows, where both are given and a terminal can have them.
fn terminal_size(columns: u32, rows: u32) -> Option<(u16, u16)> {
    let side = |value: u32| u16::try_from(value).ok().filter(|value| *value > 0);
    Some((side(columns)?, side(rows)?))
}
