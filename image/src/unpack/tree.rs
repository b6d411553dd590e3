//! Folders of a layer, reached without ever leaving it.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{self, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::errno;

/// Open folders kept; entries of one folder mostly follow each other.
const CACHED: usize = 16;
pub(super) const MAX_PATH: usize = 4095;
const MAX_COMPONENT: usize = 255;

/// The root of a layer.
#[derive(Debug)]
pub(super) struct Tree {
    root: Rc<OwnedFd>,
    /// Folders by path in the layer, the most recent last.
    open: Vec<(Vec<u8>, Rc<OwnedFd>)>,
}

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

impl Tree {
    pub fn open(root: &Path) -> Result<Self, Errno> {
        let root = fs::open(root, FOLDER.union(OFlags::NOFOLLOW), Mode::empty())?;
        Ok(Self {
            root: Rc::new(root),
            open: Vec::with_capacity(CACHED),
        })
    }

    pub fn root(&self) -> Rc<OwnedFd> {
        Rc::clone(&self.root)
    }

    /// An existing folder, links in its path followed within the layer.
    pub fn folder(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, Errno> {
        if path.is_empty() {
            return Ok(self.root());
        }
        if let Some(index) = self.open.iter().position(|(known, _)| known == path) {
            let entry = self.open.remove(index);
            let folder = Rc::clone(&entry.1);
            self.open.push(entry);
            return Ok(folder);
        }
        let folder = Rc::new(resolve(&self.root, path)?);
        self.remember(path, &folder);
        Ok(folder)
    }

    /// The folder at `path`, made with mode 0755 where it is missing; `made` hears of each one made.
    pub fn folder_or_make(
        &mut self,
        path: &[u8],
        mut made: impl FnMut(&[u8]),
    ) -> Result<Rc<OwnedFd>, Errno> {
        match self.folder(path) {
            Err(Errno::NOENT) => {}
            done => return done,
        }
        let mut folder = self.root();
        let mut end = 0;
        for component in path.split(|byte| *byte == b'/') {
            end += component.len() + usize::from(end > 0);
            let here = &path[..end];
            folder = match self.folder(here) {
                Err(Errno::NOENT) => {
                    errno(joey_failpoint::hit("layer.folder.create"))?;
                    // A link that leads nowhere is in the way: EEXIST.
                    fs::mkdirat(&folder, component, Mode::from_raw_mode(0o755))?;
                    let new = fs::openat(
                        &folder,
                        component,
                        FOLDER.union(OFlags::NOFOLLOW),
                        Mode::empty(),
                    )?;
                    // Not left to the process's umask.
                    fs::fchmod(&new, Mode::from_raw_mode(0o755))?;
                    made(here);
                    let new = Rc::new(new);
                    self.remember(here, &new);
                    new
                }
                found => found?,
            };
        }
        Ok(folder)
    }

    /// Keeps an open folder for its entries to come.
    pub fn remember(&mut self, path: &[u8], folder: &Rc<OwnedFd>) {
        self.open.retain(|(known, _)| known != path);
        if self.open.len() >= CACHED {
            self.open.remove(0);
        }
        self.open.push((path.to_vec(), Rc::clone(folder)));
    }

    /// Removes whatever is at `name`, which may change where paths lead.
    pub fn remove(&mut self, parent: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        self.open.clear();
        errno(joey_failpoint::hit("layer.entry.replace"))?;
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        joey_removal::remove_at(parent, &name)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }
}

/// A path that names `name` in an open folder, for calls that take no descriptor.
pub(super) fn proc_path(folder: std::os::fd::BorrowedFd<'_>, name: &[u8]) -> std::path::PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    Path::new("/proc/self/fd")
        .join(folder.as_raw_fd().to_string())
        .join(std::ffi::OsStr::from_bytes(name))
}

/// Opens a folder below `root`, following links as if `root` were `/`.
pub(super) fn resolve(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    loop {
        let opened = fs::openat2(
            root,
            path,
            FOLDER,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        );
        // The kernel says "again" when something anywhere was renamed meanwhile.
        if !matches!(opened, Err(Errno::AGAIN | Errno::INTR)) {
            return opened;
        }
    }
}

/// Brings a path from a tar into the form `a/b/c`, relative to the layer's root: `.` and empty
/// components vanish, `..` goes up no further than the root. The root itself is the empty path.
/// `None`: the path is too long or has a NUL.
pub(super) fn clean(path: &[u8]) -> Option<Vec<u8>> {
    if path.len() > MAX_PATH || path.contains(&0) {
        return None;
    }
    let mut kept: Vec<&[u8]> = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(kept.pop()),
            long if long.len() > MAX_COMPONENT => return None,
            name => kept.push(name),
        }
    }
    Some(kept.join(&b'/'))
}

/// Parts a clean path that is not the root into parent and name.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_and_stay_inside() {
        let clean = |path: &str| clean(path.as_bytes()).map(|p| String::from_utf8(p).unwrap());
        assert_eq!(clean("./a//b/./c/").unwrap(), "a/b/c");
        assert_eq!(clean("/etc/passwd").unwrap(), "etc/passwd");
        assert_eq!(clean("../../etc/../x").unwrap(), "x");
        assert_eq!(clean("./").unwrap(), "");
        assert_eq!(clean("a\0b"), None);
        assert_eq!(clean(&"x".repeat(256)), None);
        assert_eq!(clean(&"x/".repeat(3000)), None);
    }

    #[test]
    fn links_lead_nowhere_but_into_the_layer() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("abs")).unwrap();
        std::os::unix::fs::symlink("../../../../tmp", root.join("up")).unwrap();
        let mut tree = Tree::open(&root).unwrap();
        let etc = fs::fstat(&*tree.folder(b"etc").unwrap()).unwrap().st_ino;
        assert_eq!(
            fs::fstat(&*tree.folder(b"abs").unwrap()).unwrap().st_ino,
            etc
        );
        assert_eq!(tree.folder(b"up").unwrap_err(), Errno::NOENT);
        assert_eq!(
            tree.folder_or_make(b"up/x", |_| ()).unwrap_err(),
            Errno::EXIST
        );
    }
}
