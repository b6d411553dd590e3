//! A small mount namespace that every worker copies instead of the host's.
//!
//! Copying a mount namespace costs in proportion to its mounts, a container's creation copies it
//! twice, and libcontainer reads the mount table many times over. The template holds six mounts:
//! an empty tmpfs as root, /proc, /dev and sysfs of the host, and the pod's /dev/shm. A plain
//! folder at /sys/fs/cgroup makes libcontainer find a host without cgroup controllers: the worker
//! has entered the container's cgroups already.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, mkdirat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    mount_change, move_mount, open_tree, unmount,
};

use crate::error::{Failure, Result, Step};
use crate::namespaces::Pod;
use crate::report::{self, Report};
use crate::sys::{self, MountChange};

/// Where a worker mounts its own scratch tmpfs.
pub const WORK: &str = "/work";
/// Where a worker mounts the root file system.
pub const ROOTFS: &str = "/rootfs";
/// Where image mounts are put together.
pub const IMAGE: &str = "/image";
/// Where the pod's shared memory is.
pub const SHM: &str = "/shm";
const HELPER_SECONDS: u64 = 30;

/// A detached tmpfs.
pub fn tmpfs(options: &[(&str, &str)]) -> Result<OwnedFd> {
    joey_failpoint::hit("mount.tmpfs").step("open a tmpfs")?;
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).step("open a tmpfs")?;
    for (key, value) in options {
        fsconfig_set_string(context.as_fd(), *key, *value)
            .step_with(|| format!("set tmpfs {key}={value}"))?;
    }
    fsconfig_create(context.as_fd()).step("make a tmpfs")?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).step("mount a tmpfs")
}

/// A detached copy of a mount, or of the part of one beneath `path`.
pub fn clone_tree(dir: BorrowedFd<'_>, path: &str, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if path.is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    joey_failpoint::hit("mount.clone")?;
    Ok(open_tree(dir, path, flags)?)
}

/// Attaches a detached mount to a path.
pub fn attach(mount: BorrowedFd<'_>, dir: BorrowedFd<'_>, path: &str) -> Result<()> {
    let mut flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    if path.is_empty() {
        flags |= MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    }
    joey_failpoint::hit("mount.attach")?;
    Ok(move_mount(mount, "", dir, path, flags)?)
}

/// Makes the namespace and returns it.
pub fn make(pod: &Pod) -> Result<OwnedFd> {
    let (reporter, reports) = report::pair()?;
    let helper = sys::fork(&sys::Fork::default(), || match build(pod) {
        Ok(namespace) => match reporter.send_fds(&Report::Fds, &[namespace.as_fd()]) {
            Ok(()) => 0,
            Err(_) => 1,
        },
        Err(failure) => {
            reporter.send(&Report::Failed(failure));
            1
        }
    })
    .step("fork a helper")?;
    drop(reporter);
    reports.set_timeout(HELPER_SECONDS)?;
    let made = match reports.next(true) {
        Some(Some((Report::Fds, mut fds))) => fds
            .pop()
            .ok_or_else(|| Failure::new("the helper sent no namespace")),
        Some(Some((Report::Failed(failure), _))) => Err(failure),
        _ => Err(Failure::new("the helper did not answer")),
    };
    if made.is_err() {
        rustix::process::kill_process(helper, rustix::process::Signal::KILL).ok();
    }
    made.step("make the workers' mount namespace")
}

fn build(pod: &Pod) -> Result<OwnedFd> {
    let private = MountChange {
        propagation: libc::MS_PRIVATE,
        ..MountChange::default()
    };
    let mut parts = Vec::new();
    for (source, target) in [("/proc", "proc"), ("/dev", "dev"), ("/sys", "sysfs")] {
        let tree =
            clone_tree(CWD, source, false).step_with(|| format!("copy the mount {source}"))?;
        sys::mount_setattr(tree.as_fd(), &private)
            .step_with(|| format!("make the copy of {source} private"))?;
        parts.push((tree, target));
    }
    if pod.shm_bytes > 0 {
        let (uid, gid) = pod.root_ids();
        let (size, uid, gid) = (pod.shm_bytes.to_string(), uid.to_string(), gid.to_string());
        let mut options = vec![
            ("size", size.as_str()),
            ("mode", "1777"),
            ("uid", uid.as_str()),
            ("gid", gid.as_str()),
        ];
        if !pod.shm_label.is_empty() {
            options.push(("context", pod.shm_label.as_str()));
        }
        parts.push((tmpfs(&options).step("make the pod's /dev/shm")?, "shm"));
    }
    sys::unshare(libc::CLONE_NEWNS).step("copy the mount namespace")?;
    let root = tmpfs(&[("size", "64k"), ("mode", "0755")])?;
    for dir in [
        "proc",
        "dev",
        "sysfs",
        "sys",
        "sys/fs",
        "sys/fs/cgroup",
        "shm",
        "work",
        "rootfs",
        "image",
    ] {
        mkdirat(&root, dir, Mode::from_raw_mode(0o755))
            .step_with(|| format!("make the folder {dir}"))?;
    }
    enter_root(root.as_fd())?;
    for (tree, target) in &parts {
        attach(tree.as_fd(), CWD, &format!("/{target}"))
            .step_with(|| format!("attach {target}"))?;
    }
    Ok(fs::File::open("/proc/self/ns/mnt")
        .step("open the mount namespace")?
        .into())
}

/// Makes a detached mount the root, and lets go of everything else.
fn enter_root(root: BorrowedFd<'_>) -> Result<()> {
    let all = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    joey_failpoint::hit("mount.root").step("change the root")?;
    mount_change("/", all).step("keep mounts from the host")?;
    attach(root, CWD, "/proc").step("attach the new root")?;
    rustix::process::fchdir(root).step("enter the new root")?;
    rustix::process::pivot_root(".", ".").step("change the root")?;
    unmount(".", UnmountFlags::DETACH).step("let go of the old root")?;
    rustix::process::chdir("/").step("enter the new root")
}

/// An empty read-only root: for the pod's init, in a mount namespace of its own.
pub fn empty_root() -> Result<()> {
    let root = tmpfs(&[("size", "4k"), ("mode", "0555")])?;
    let read_only = MountChange {
        set: libc::MOUNT_ATTR_RDONLY,
        ..MountChange::default()
    };
    sys::mount_setattr(root.as_fd(), &read_only).step("make the empty root read-only")?;
    enter_root(root.as_fd())
}
