//! What the container's init does to its own mounts, after libcontainer has changed the root.
//!
//! Paths are resolved by descriptor inside the new root, the old one is gone, and nothing is ever
//! mounted into procfs by a redirected path (CVE-2021-30465, CVE-2025-52881).

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::error::{Failure, Result, Step};
use crate::rootfs::{Volume, prefixed};
use crate::sys::{self, MountChange};
use crate::template::{self, attach, clone_tree};

const PROC_MAGIC: u64 = 0x9fa0;
const PROC_ROOT_INODE: u64 = 1;
/// The files of /proc that may be covered: those that lxcfs emulates.
const COVERABLE: [&str; 9] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
];

/// The container's view of its own cgroups: detached mounts and their names.
#[derive(Debug)]
pub struct CgroupTrees {
    /// Where the container wants them.
    pub destination: String,
    /// On v1 one per controller, on v2 one without a name.
    pub trees: Vec<(String, OwnedFd)>,
}

/// Attaches a volume, making its mount point.
pub fn attach_volume(volume: &Volume) -> Result<()> {
    let attach_it = || -> Result<()> {
        let place = mount_point(&volume.destination, volume.directory)?;
        // All of /proc by another procfs, or some files of it by anything (CVE-2023-27561).
        let allowed = match volume.destination.as_str() {
            "/proc" => is_proc(&volume.tree)?,
            path => COVERABLE.contains(&path),
        };
        if is_proc(&place)? && !allowed {
            return Err(Failure::with_errno(
                libc::EPERM,
                "it would cover a part of procfs",
            ));
        }
        attach(volume.tree.as_fd(), place.as_fd(), "")
    };
    attach_it()
        .step_with(|| format!("mount a volume at {}", volume.destination))
        .map_err(|failure| prefixed(&volume.error_prefix, failure))
}

/// Attaches the container's cgroups.
pub fn attach_cgroups(cgroups: &CgroupTrees) -> Result<()> {
    let place = mount_point(&cgroups.destination, true)?;
    if let [(name, tree)] = cgroups.trees.as_slice()
        && name.is_empty()
    {
        return attach(tree.as_fd(), place.as_fd(), "");
    }
    let top = template::tmpfs(&[("size", "64k"), ("mode", "0755")])?;
    attach(top.as_fd(), place.as_fd(), "")?;
    for (name, tree) in &cgroups.trees {
        mkdirat(&top, name.as_str(), Mode::from_raw_mode(0o755))
            .step_with(|| format!("make the folder {name}"))?;
        attach(tree.as_fd(), top.as_fd(), name).step_with(|| format!("attach {name}"))?;
    }
    let read_only = MountChange {
        set: libc::MOUNT_ATTR_RDONLY,
        ..MountChange::default()
    };
    sys::mount_setattr(top.as_fd(), &read_only).step("make the cgroup folder read-only")
}

/// Makes the root mount read-only.
pub fn read_only_root() -> Result<()> {
    let root = open_root()?;
    let read_only = MountChange {
        set: libc::MOUNT_ATTR_RDONLY,
        ..MountChange::default()
    };
    sys::mount_setattr(root.as_fd(), &read_only).step("make the root file system read-only")
}

/// Puts a pty's slave at /dev/console.
pub fn mount_console(slave: &OwnedFd) -> Result<()> {
    // The last component is never followed: an image may hold a link there (CVE-2025-52565).
    let dev = open_within(
        open_root()?,
        "dev",
        OFlags::PATH | OFlags::DIRECTORY,
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
    .step("open /dev")?;
    let flags = OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::CLOEXEC
        | OFlags::RDONLY
        | OFlags::NONBLOCK
        | OFlags::NOCTTY;
    let place =
        openat(&dev, "console", flags, Mode::from_raw_mode(0o600)).step("make /dev/console")?;
    let tree = clone_tree(slave.as_fd(), "", false).step("copy the terminal")?;
    attach(tree.as_fd(), place.as_fd(), "").step("mount /dev/console")
}

/// Opens a file of this process in procfs, refusing anything that was put in its way.
pub fn open_proc(path: &str, flags: OFlags) -> Result<OwnedFd> {
    let proc = openat(
        CWD,
        "/proc",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    if !is_proc(&proc)? || rustix::fs::fstat(&proc)?.st_ino != PROC_ROOT_INODE {
        return Err(Failure::with_errno(libc::EPERM, "/proc is not procfs"));
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    Ok(open_within(proc, path, flags, resolve)?)
}

fn is_proc(fd: &OwnedFd) -> Result<bool> {
    Ok(u64::try_from(rustix::fs::fstatfs(fd)?.f_type).is_ok_and(|magic| magic == PROC_MAGIC))
}

/// Attempts of [`open_within`] until EAGAIN is taken for an answer.
const OPEN_ATTEMPTS: u32 = 1000;

/// `openat2(2)`. Where a path goes up, the kernel says EAGAIN when anything on the host was renamed or
/// mounted meanwhile: that is tried again, but not for ever for a container that renames all the time.
pub fn open_within<P: Arg + Copy>(
    dir: impl AsFd,
    path: P,
    flags: OFlags,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    let open = || {
        let flags = flags | OFlags::CLOEXEC;
        openat2(dir.as_fd(), path, flags, Mode::empty(), resolve)
    };
    for _ in 1..OPEN_ATTEMPTS {
        match open() {
            Err(Errno::AGAIN) => {}
            opened => return opened,
        }
    }
    open()
}

/// The root of this process.
pub fn open_root() -> Result<OwnedFd> {
    openat(
        CWD,
        "/",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step("open the root")
}

/// Makes a folder and its parents; those that exist are followed inside the root.
pub fn make_dirs(path: &str) -> Result<OwnedFd> {
    mount_point(path, true)
}

/// Finds or makes a folder or an empty file inside the root.
fn mount_point(path: &str, directory: bool) -> Result<OwnedFd> {
    let root = open_root()?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let find = |path: &Path| open_within(&root, path, OFlags::PATH, resolve);
    let path = Path::new(path);
    match find(path) {
        Ok(found) => return Ok(found),
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error).step_with(|| format!("find {}", path.display())),
    }
    let mut at = std::path::PathBuf::from("/");
    let mut dir = find(&at)?;
    let mut parts = path
        .components()
        .filter(|part| !matches!(part, Component::RootDir))
        .peekable();
    while let Some(part) = parts.next() {
        at.push(part);
        dir = match find(&at) {
            Ok(found) => found,
            Err(Errno::NOENT) => {
                let step = || format!("make the mount point {}", at.display());
                if parts.peek().is_some() || directory {
                    mkdirat(&dir, part.as_os_str(), Mode::from_raw_mode(0o755)).step_with(step)?;
                } else {
                    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                    drop(
                        openat(&dir, part.as_os_str(), flags, Mode::from_raw_mode(0o644))
                            .step_with(step)?,
                    );
                }
                find(&at).step_with(step)?
            }
            Err(error) => return Err(error).step_with(|| format!("find {}", at.display())),
        };
    }
    Ok(dir)
}
