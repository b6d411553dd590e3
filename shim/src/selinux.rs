//! Relabels volumes for SELinux.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, XattrFlags, fstat, openat, setxattr};
use rustix::io::Errno;

use crate::error::{Failure, Result, Step};

const ATTRIBUTE: &str = "security.selinux";
/// What the host itself needs under its own labels, as other runtimes have it; with what `/bin` and
/// the like lead to.
const SYSTEM: [&str; 29] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/etc/passwd",
    "/etc/pki",
    "/etc/shadow",
    "/home",
    "/lib",
    "/lib64",
    "/media",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/system",
    "/tmp",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/lib64",
    "/usr/sbin",
    "/var",
    "/var/lib",
    "/var/log",
];

/// Gives everything at and beneath `path` a label.
pub fn relabel(path: &str, label: &str) -> Result<()> {
    if SYSTEM
        .iter()
        .any(|system| Path::new(path) == Path::new(system))
    {
        let message = format!("relabel {path}: it is a folder of the host itself");
        return Err(Failure::with_errno(libc::EPERM, message));
    }
    match set_everywhere(path, ATTRIBUTE, label.as_bytes()) {
        // A file system without labels, such as NFS, has one for all its files.
        Err(Errno::NOTSUP) => Ok(()),
        other => other.step_with(|| format!("relabel {path}")),
    }
}

/// Sets an extended attribute of every file, by descriptors: links are never followed, and there are
/// as many open as the folders are deep.
fn set_everywhere(path: &str, name: &str, value: &[u8]) -> std::result::Result<(), Errno> {
    let mut folders: Vec<Dir> = set(CWD, path, name, value)?.into_iter().collect();
    while let Some(folder) = folders.last_mut() {
        let Some(entry) = folder.next() else {
            folders.pop();
            continue;
        };
        let entry = entry?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        match set(folder.fd()?, entry.file_name(), name, value) {
            Ok(below) => folders.extend(below),
            // Removed meanwhile, or on a mount without labels.
            Err(Errno::NOENT | Errno::NOTSUP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sets an attribute of one file; a folder is returned.
fn set(
    folder: BorrowedFd<'_>,
    path: impl rustix::path::Arg,
    name: &str,
    value: &[u8],
) -> std::result::Result<Option<Dir>, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = openat(folder, path, flags, Mode::empty())?;
    // Through /proc, as an O_PATH descriptor has no attributes of its own.
    let here = format!("/proc/self/fd/{}", node.as_raw_fd());
    setxattr(here.as_str(), name, value, XattrFlags::empty())?;
    if !FileType::from_raw_mode(fstat(&node)?.st_mode).is_dir() {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = openat(&node, ".", flags, Mode::empty())?;
    Dir::new(opened).map(Some)
}

#[cfg(test)]
mod tests {
    use rustix::fs::getxattr;

    use super::*;

    #[test]
    fn every_file_is_labelled_and_no_link_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (volume, other) = (folder.path().join("volume"), folder.path().join("other"));
        std::fs::create_dir_all(volume.join("a/b")).unwrap();
        std::fs::write(volume.join("a/b/file"), "").unwrap();
        std::fs::write(&other, "").unwrap();
        std::os::unix::fs::symlink(&other, volume.join("link")).unwrap();
        // Any attribute that links may have as well.
        let name = "trusted.joey";
        set_everywhere(volume.to_str().unwrap(), name, b"label").unwrap();
        let label = |path: &Path| {
            let mut value = [0; 16];
            let length = getxattr(path, name, &mut value[..])?;
            Ok::<_, Errno>(value[..length].to_vec())
        };
        for part in ["", "a", "a/b", "a/b/file"] {
            assert_eq!(label(&volume.join(part)).unwrap(), b"label", "{part}");
        }
        label(&other).unwrap_err();
    }

    #[test]
    fn the_hosts_own_folders_are_refused() {
        for path in ["/", "/etc", "/usr/", "/usr/lib", "/etc/shadow", "/tmp"] {
            let refused = relabel(path, "system_u:object_r:container_file_t:s0").unwrap_err();
            assert!(refused.message.contains("of the host"), "{refused}");
        }
    }
}
