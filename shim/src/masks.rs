//! Hides paths of a container and makes others read-only.
//!
//! It comes after every volume, so that none brings back what is hidden, and goes by descriptors:
//! what is put in the way can only lead elsewhere inside the root, and /dev/null is known by its
//! device number (CVE-2025-31133).

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Failure, Result, Step};
use crate::inside::{open_root, open_within};
use crate::sys::{self, MountChange};
use crate::template::{self, attach, clone_tree};

/// What of a container is hidden or kept from being written.
#[derive(Debug, Default)]
pub struct Masks {
    /// Covered by nothing.
    pub hidden: Vec<String>,
    /// Made read-only.
    pub read_only: Vec<String>,
}

impl Masks {
    /// Covers what is there; what is missing needs no cover. `null` is [`open_null`]'s.
    pub fn apply(&self, null: &OwnedFd) -> Result<()> {
        for path in &self.read_only {
            protect(path).step_with(|| format!("make {path} read-only"))?;
        }
        let mut nothing = None;
        for path in &self.hidden {
            hide(path, null, &mut nothing).step_with(|| format!("mask {path}"))?;
        }
        Ok(())
    }
}

/// The container's own /dev/null, before a volume can cover it.
pub fn open_null() -> Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let null =
        open_within(open_root()?, "dev/null", OFlags::PATH, resolve).step("open /dev/null")?;
    let stat = rustix::fs::fstat(&null).step("look at /dev/null")?;
    let device = FileType::from_raw_mode(stat.st_mode).is_char_device()
        && stat.st_rdev == rustix::fs::makedev(1, 3);
    if !device {
        let what = "/dev/null is not the null device";
        return Err(Failure::with_errno(libc::EPERM, what));
    }
    Ok(null)
}

/// Links are followed inside the root; None where nothing is there.
fn find(path: &str) -> Result<Option<OwnedFd>> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match open_within(open_root()?, path, OFlags::PATH, resolve) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn read_only() -> MountChange<'static> {
    MountChange {
        set: libc::MOUNT_ATTR_RDONLY,
        ..MountChange::default()
    }
}

fn protect(path: &str) -> Result<()> {
    let Some(place) = find(path)? else {
        return Ok(());
    };
    let tree = clone_tree(place.as_fd(), "", true)?;
    sys::mount_setattr(tree.as_fd(), &read_only())?;
    attach(tree.as_fd(), place.as_fd(), "")
}

/// A folder is covered by an empty one, the same for all, anything else by /dev/null.
fn hide(path: &str, null: &OwnedFd, nothing: &mut Option<OwnedFd>) -> Result<()> {
    let Some(place) = find(path)? else {
        return Ok(());
    };
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode);
    if !kind.is_dir() {
        let tree = clone_tree(null.as_fd(), "", false)?;
        return attach(tree.as_fd(), place.as_fd(), "");
    }
    if let Some(nothing) = nothing {
        let tree = clone_tree(nothing.as_fd(), "", false)?;
        return attach(tree.as_fd(), place.as_fd(), "");
    }
    let tree = template::tmpfs(&[("size", "4k"), ("mode", "0755")])?;
    sys::mount_setattr(tree.as_fd(), &read_only())?;
    attach(tree.as_fd(), place.as_fd(), "")?;
    *nothing = Some(tree);
    Ok(())
}
