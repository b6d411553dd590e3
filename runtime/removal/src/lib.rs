//! Removes what containers and images have made, however deep it is.
//!
//! `std::fs::remove_dir_all` needs a stack frame and a descriptor for each level, and nothing bounds
//! the levels that a container makes. Here folders that lie too deep are moved up into the one that
//! is being removed, so that few descriptors and little memory do for any depth. Every step names an
//! entry of an open folder and follows no link.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Levels of folders that are open at a time.
const OPEN: usize = 32;

/// Removes a file or a folder with everything in it. Blocks.
///
/// # Errors
/// When it is absent, or something in it can't be removed; the rest may be gone then.
pub fn remove(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    remove_at(CWD, &path)
}

/// Removes what has a name in an open folder. Blocks.
///
/// # Errors
/// As [`remove`].
pub fn remove_at(parent: impl AsFd, name: &CStr) -> io::Result<()> {
    let parent = parent.as_fd();
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        done => return Ok(done?),
    }
    let top = open(parent, name)?;
    let mut removal = Removal {
        top: top.as_fd(),
        moved_up: 0,
    };
    removal.empty(Dir::read_from(&top)?)?;
    let mut emptied = 0;
    while emptied < removal.moved_up {
        let name = place(emptied);
        emptied += 1;
        if let Some(folder) = present(open(&top, &name))? {
            removal.empty(Dir::new(folder)?)?;
            remove_empty(top.as_fd(), &name)?;
        }
    }
    Ok(fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

struct Removal<'a> {
    /// What is being removed.
    top: BorrowedFd<'a>,
    /// Folders that were moved here from further down, ever.
    moved_up: u64,
}

struct Level {
    entries: Dir,
    /// In the level above.
    name: CString,
}

impl Removal<'_> {
    /// Removes all that is in a folder.
    fn empty(&mut self, folder: Dir) -> io::Result<()> {
        let mut levels = vec![Level {
            entries: folder,
            name: CString::default(),
        }];
        while let Some(mut level) = levels.pop() {
            let Some(entry) = level.entries.read() else {
                if let Some(above) = levels.last() {
                    remove_empty(above.entries.fd()?, &level.name)?;
                }
                continue;
            };
            let entry = entry?;
            let name = entry.file_name();
            let below = if name == c"." || name == c".." {
                None
            } else {
                let too_deep = levels.len() + 1 >= OPEN;
                self.entry(level.entries.fd()?, name, entry.file_type(), too_deep)?
            };
            levels.push(level);
            if let Some(folder) = below {
                levels.push(Level {
                    entries: Dir::new(folder)?,
                    name: name.to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Removes an entry; a folder that has to be emptied first is opened instead, or moved up.
    fn entry(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &CStr,
        kind: FileType,
        too_deep: bool,
    ) -> io::Result<Option<OwnedFd>> {
        if kind != FileType::Directory {
            match fs::unlinkat(folder, name, AtFlags::empty()) {
                // Not every file system tells the kind.
                Err(Errno::ISDIR | Errno::PERM) if kind == FileType::Unknown => {}
                done => return Ok(present(done)?.and(None)),
            }
        }
        if too_deep && self.move_up(folder, name)? {
            return Ok(None);
        }
        Ok(present(open(folder, name))?)
    }

    /// False where the file system has no way or no room for it.
    fn move_up(&mut self, folder: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
        loop {
            let place = place(self.moved_up);
            self.moved_up += 1;
            return match fs::renameat(folder, name, self.top, &place) {
                // A name that the folder had before.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => continue,
                Err(Errno::XDEV | Errno::NOSPC | Errno::DQUOT | Errno::MLINK) => Ok(false),
                done => Ok(present(done).map(|_| true)?),
            };
        }
    }
}

/// The name of a folder that was moved up.
fn place(number: u64) -> CString {
    // A number has no NUL.
    CString::new(format!(".joey-moved-up-{number}")).unwrap_or_default()
}

fn open(parent: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(parent, name, flags, Mode::empty())
}

fn remove_empty(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    present(fs::unlinkat(parent, name, AtFlags::REMOVEDIR)).map(drop)
}

/// What is gone already needs no removal.
fn present<T>(result: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match result {
        Err(Errno::NOENT) => Ok(None),
        done => done.map(Some),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::symlink;

    use super::*;

    const LEVELS: usize = 5000;

    /// Makes folders in each other, `levels` deep, named `name`.
    fn deep(top: &Path, name: &CStr, levels: usize) {
        let mut at = fs::open(top, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        for _ in 0..levels {
            fs::mkdirat(&at, name, Mode::from_raw_mode(0o700)).unwrap();
            let file = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            drop(fs::openat(&at, c"file", file, Mode::from_raw_mode(0o600)).unwrap());
            at = open(&at, name).unwrap();
        }
    }

    fn open_files() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }

    #[test]
    fn any_depth_is_removed() {
        let outer = tempfile::tempdir().unwrap();
        let doomed = outer.path().join("doomed");
        std::fs::create_dir(&doomed).unwrap();
        deep(&doomed, c"d", LEVELS);
        deep(&doomed, c"e", 2 * OPEN);
        let before = open_files();
        // Neither a frame nor a descriptor for each level has room.
        let removal = std::thread::Builder::new().stack_size(64 << 10);
        let path = doomed.clone();
        let removed = removal.spawn(move || remove(&path)).unwrap().join();
        removed.unwrap().unwrap();
        assert!(!doomed.exists());
        assert!(open_files() <= before, "descriptors stay open");
    }

    #[test]
    fn names_like_our_own_are_no_obstacle() {
        let outer = tempfile::tempdir().unwrap();
        let doomed = outer.path().join("doomed");
        for number in 0..3 {
            let folder = doomed.join(place(number).to_str().unwrap());
            std::fs::create_dir_all(folder.join("x")).unwrap();
        }
        std::fs::write(doomed.join(".joey-moved-up-3"), "").unwrap();
        std::fs::create_dir(doomed.join(".joey-moved-up-4")).unwrap();
        deep(&doomed, c"d", 5 * OPEN);
        remove(&doomed).unwrap();
        assert!(!doomed.exists());
    }

    #[test]
    fn links_are_removed_and_not_followed() {
        let outer = tempfile::tempdir().unwrap();
        let kept = outer.path().join("kept");
        std::fs::create_dir(&kept).unwrap();
        std::fs::write(kept.join("file"), "").unwrap();
        let doomed = outer.path().join("doomed");
        std::fs::create_dir(&doomed).unwrap();
        symlink(&kept, doomed.join("link")).unwrap();
        remove(&doomed).unwrap();
        symlink(&kept, &doomed).unwrap();
        remove(&doomed).unwrap();
        std::fs::symlink_metadata(&doomed).unwrap_err();
        assert!(kept.join("file").exists());
    }

    #[test]
    fn files_go_and_what_is_absent_is_told() {
        let outer = tempfile::tempdir().unwrap();
        let file = outer.path().join("file");
        std::fs::write(&file, "").unwrap();
        remove(&file).unwrap();
        let error = remove(&file).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
