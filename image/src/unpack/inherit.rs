//! Folders that a layer has only because something is in them.
//!
//! In an overlay the topmost folder's owner and mode count. A tar may name `a/b/c` without `a` and
//! `a/b`: those then look as they do in the layers below.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::apply::{OPAQUE_XATTR, is_whiteout};
use super::tree::{self, Tree};
use super::{UnpackError, errno};

/// Gives the folders in `implied` of the layer at `root` the owner, mode, xattrs and times that
/// they have in the first of `lowers` (topmost first) to know them. Blocks.
pub(crate) fn inherit(
    root: &Path,
    implied: &BTreeSet<Vec<u8>>,
    lowers: &[PathBuf],
) -> Result<(), UnpackError> {
    if implied.is_empty() {
        return Ok(());
    }
    let failed = |path: &[u8], source| UnpackError::Entry {
        action: "take over the owner and mode of",
        path: String::from_utf8_lossy(path).into_owned(),
        source,
    };
    let mut tree = Tree::open(root).map_err(|errno| failed(b"/", errno))?;
    let mut below = Vec::with_capacity(lowers.len());
    for lower in lowers {
        below.push(Tree::open(lower).map_err(|errno| failed(b"/", errno))?);
    }
    // The deepest first: their making changed the times of those above.
    for path in implied.iter().rev() {
        let folder = match tree.folder(path) {
            Ok(folder) => folder,
            // A later entry of the layer took its place.
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            Err(errno) => return Err(failed(path, errno)),
        };
        if is_opaque(&folder) {
            continue;
        }
        if let Some(model) = find(&mut below, path) {
            copy_metadata(&model, &folder).map_err(|errno| failed(path, errno))?;
        }
    }
    Ok(())
}

/// The folder at `path` as the layers below show it.
fn find(below: &mut [Tree], path: &[u8]) -> Option<OwnedFd> {
    let (parent_path, name) = tree::split(path);
    for lower in below {
        let Ok(parent) = lower.folder(parent_path) else {
            continue;
        };
        let Ok(stat) = fs::statat(&*parent, name, AtFlags::SYMLINK_NOFOLLOW) else {
            if is_opaque(&parent) {
                return None;
            }
            continue;
        };
        if is_whiteout(&stat) || FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return None;
        }
        return tree::resolve(&lower.root(), path).ok();
    }
    None
}

fn is_opaque(folder: impl AsFd) -> bool {
    let mut value = [0u8; 2];
    matches!(fs::fgetxattr(folder, OPAQUE_XATTR, &mut value[..]), Ok(1) if value[0] == b'y')
}

fn copy_metadata(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    let stat = fs::fstat(from)?;
    errno(joey_failpoint::hit("layer.folder.inherit"))?;
    fs::fchown(
        to,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )?;
    fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    copy_xattrs(from, to)?;
    let time = |seconds, nanos: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanos).unwrap_or_default(),
    };
    fs::futimens(
        to,
        &Timestamps {
            last_access: time(stat.st_atime, stat.st_atime_nsec),
            last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
        },
    )
}

fn copy_xattrs(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    let mut names = vec![0u8; fs::flistxattr_query(from)?];
    if names.is_empty() {
        return Ok(());
    }
    let length = fs::flistxattr(from, &mut names[..])?;
    for name in names[..length].split(|byte| *byte == 0) {
        if name.is_empty() || name.starts_with(b"trusted.overlay.") {
            continue;
        }
        let mut value = vec![0u8; fs::fgetxattr_query(from, name)?];
        let length = match value.len() {
            0 => 0,
            _ => fs::fgetxattr(from, name, &mut value[..])?,
        };
        errno(joey_failpoint::hit("layer.folder.inherit"))?;
        match fs::fsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
