//! Owner, mode, times and xattrs of an entry.

use std::os::fd::OwnedFd;

use rustix::fs::{self, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::apply::{Step, step};
use super::errno;
use super::tar_reader::Entry;

/// The step, in errors.
pub(super) const SET_XATTR: &str = "set an xattr of";

pub(super) fn finish_file(file: &OwnedFd, entry: &Entry) -> Step {
    step(
        "set the owner of",
        errno(joey_failpoint::hit("layer.file.change")),
    )?;
    // The order matters: a change of owner clears set-user-ID and file capabilities.
    step(
        "set the owner of",
        fs::fchown(file, Some(uid(entry)), Some(gid(entry))),
    )?;
    step("set the mode of", fs::fchmod(file, mode(entry)))?;
    for (name, value) in usable_xattrs(entry, true) {
        step(SET_XATTR, set_xattr(file, name, value))?;
    }
    step("set the time of", fs::futimens(file, &times(entry.mtime)))
}

/// The xattrs an image may set. Those of overlayfs steer where lookups go, so they are not the
/// image's to choose; only files and folders may have `user.` ones.
pub(super) fn usable_xattrs(entry: &Entry, plain: bool) -> impl Iterator<Item = (&[u8], &[u8])> {
    entry
        .xattrs
        .iter()
        .map(|(name, value)| (name.as_slice(), value.as_slice()))
        .filter(move |(name, _)| {
            !name.starts_with(b"trusted.overlay.")
                && !name.starts_with(b"user.overlay.")
                && !name.contains(&0)
                && (plain || !name.starts_with(b"user."))
        })
}

pub(super) fn set_xattr(file: &OwnedFd, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    tolerate_unsupported(fs::fsetxattr(file, name, value, XattrFlags::empty()))
}

/// File systems lack some kinds of xattr; an image is still usable without them.
pub(super) fn tolerate_unsupported(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOTSUP) => Ok(()),
        other => other,
    }
}

pub(super) fn uid(entry: &Entry) -> Uid {
    Uid::from_raw(entry.uid)
}

pub(super) fn gid(entry: &Entry) -> Gid {
    Gid::from_raw(entry.gid)
}

pub(super) fn mode(entry: &Entry) -> Mode {
    Mode::from_raw_mode(entry.mode)
}

pub(super) fn times(mtime: Timespec) -> Timestamps {
    Timestamps {
        last_access: mtime,
        last_modification: mtime,
    }
}
