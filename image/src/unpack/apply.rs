//! Applying tar entries to a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Timespec, XattrFlags};
use rustix::io::Errno;
use tar::EntryType;

use super::metadata::{
    SET_XATTR, finish_file, gid, mode, set_xattr, times, tolerate_unsupported, uid, usable_xattrs,
};
use super::tar_reader::{Entry, TarReader};
use super::tree::{self, Tree};
use super::{UnpackError, UnpackLimits, Unpacked, errno};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Book-keeping names of AUFS, which mean nothing here.
const AUFS: &[u8] = b".wh..wh.";
pub(super) const OPAQUE_XATTR: &str = "trusted.overlay.opaque";
const COPY_BUFFER: usize = 256 << 10;
const READ_BUFFER: usize = 64 << 10;
/// Files are counted in whole blocks of this size.
const BLOCK: u64 = 4096;

/// Writes one layer.
pub(super) struct Applier {
    tree: Tree,
    buffer: Vec<u8>,
    bytes: u64,
    inodes: u64,
    max_inodes: u64,
    /// Folders that got no entry of their own so far.
    implied: BTreeSet<Vec<u8>>,
    /// Set at the end: making entries changes the times of folders.
    folder_times: BTreeMap<Vec<u8>, Timespec>,
    /// What `implied` and `folder_times` take, and may take, in bytes.
    memory: u64,
    max_memory: u64,
}

/// What a path in `implied` or `folder_times` takes besides its bytes.
const PATH_COST: u64 = 64;

pub(super) type Step = Result<(), (&'static str, Errno)>;

pub(super) fn step<T>(
    action: &'static str,
    result: Result<T, Errno>,
) -> Result<T, (&'static str, Errno)> {
    result.map_err(|errno| (action, errno))
}

impl Applier {
    pub fn new(root: &Path, limits: &UnpackLimits) -> Result<Self, UnpackError> {
        let tree = Tree::open(root).map_err(|source| UnpackError::Entry {
            action: "open",
            path: "/".to_owned(),
            source,
        })?;
        Ok(Self {
            tree,
            buffer: vec![0; COPY_BUFFER],
            bytes: BLOCK,
            inodes: 1,
            max_inodes: limits.entries,
            implied: BTreeSet::new(),
            folder_times: BTreeMap::new(),
            memory: 0,
            max_memory: limits.memory,
        })
    }

    pub fn run(mut self, tar: impl Read, limits: &UnpackLimits) -> Result<Unpacked, UnpackError> {
        let mut reader = TarReader::new(BufReader::with_capacity(READ_BUFFER, tar), limits);
        while let Some(entry) = reader.next()? {
            self.entry(&entry, &mut reader)?;
            self.check_bounds()?;
        }
        self.set_folder_times()?;
        Ok(Unpacked {
            bytes: self.bytes,
            inodes: self.inodes,
            implied: self.implied,
        })
    }

    /// One entry names few folders, so it can't go far beyond.
    fn check_bounds(&self) -> Result<(), UnpackError> {
        for (what, count, limit) in [
            ("files and folders", self.inodes - 1, self.max_inodes),
            ("bytes of folders' names", self.memory, self.max_memory),
        ] {
            if count > limit {
                return Err(UnpackError::Limit { what, limit });
            }
        }
        Ok(())
    }

    fn entry<R: Read>(
        &mut self,
        entry: &Entry,
        reader: &mut TarReader<R>,
    ) -> Result<(), UnpackError> {
        let shown = || {
            String::from_utf8_lossy(&entry.path)
                .chars()
                .take(512)
                .collect()
        };
        let path = tree::clean(&entry.path).ok_or_else(|| {
            let shown: String = shown();
            UnpackError::Malformed(format!("the path {shown:?} is too long or has a NUL"))
        })?;
        let failed = |(action, source)| UnpackError::Entry {
            action,
            path: shown(),
            source,
        };
        if path.is_empty() {
            if entry.kind == EntryType::Directory {
                let root = self.tree.root();
                self.folder_metadata(&root, b"", entry).map_err(failed)?;
            }
            return Ok(());
        }
        let (parent_path, name) = tree::split(&path);
        let parent = self.parent(parent_path).map_err(failed)?;
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(&parent, name, hidden).map_err(failed);
        }
        match entry.kind {
            EntryType::Directory => self.folder(&parent, name, &path, entry).map_err(failed),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let file = self.create(&parent, name).map_err(failed)?;
                self.copy(&file, entry, reader, &failed)?;
                finish_file(&file, entry).map_err(failed)
            }
            EntryType::Link => self.hard_link(&parent, name, entry).map_err(failed),
            EntryType::Symlink | EntryType::Char | EntryType::Block | EntryType::Fifo => {
                self.special(&parent, name, entry).map_err(failed)
            }
            other => Err(UnpackError::Malformed(format!(
                "{:?} has the unknown type {:?}",
                shown() as String,
                char::from(other.as_byte())
            ))),
        }
    }

    fn parent(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, (&'static str, Errno)> {
        let (implied, memory) = (&mut self.implied, &mut self.memory);
        let mut made = 0;
        let folder = self.tree.folder_or_make(path, |path| {
            made += 1;
            if implied.insert(path.to_vec()) {
                *memory += PATH_COST + path.len() as u64;
            }
        });
        self.inodes += made;
        self.bytes += made * BLOCK;
        step("open the folder of", folder)
    }

    fn whiteout(&mut self, parent: &OwnedFd, name: &[u8], hidden: &[u8]) -> Step {
        if name == OPAQUE {
            return step("make opaque the folder of", make_opaque(parent));
        }
        if name.starts_with(AUFS) {
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(("apply the whiteout", Errno::INVAL));
        }
        match make_whiteout(parent, hidden) {
            // A whiteout hides what is below, not what this layer has itself: of a folder that is
            // in both, only this layer's part stays.
            Err(Errno::EXIST) => {
                let stat = step(
                    "look at",
                    fs::statat(parent, hidden, AtFlags::SYMLINK_NOFOLLOW),
                )?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    let folder = step("open", open_folder(parent, hidden))?;
                    step("make opaque", make_opaque(&folder))?;
                }
                Ok(())
            }
            made => {
                self.inodes += 1;
                step("apply the whiteout", made)
            }
        }
    }

    fn folder(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8], entry: &Entry) -> Step {
        let mode = Mode::from_raw_mode(0o700);
        let mut hides = false;
        step("make", errno(joey_failpoint::hit("layer.folder.create")))?;
        match fs::mkdirat(parent, name, mode) {
            Ok(()) => {
                self.inodes += 1;
                self.bytes += BLOCK;
            }
            Err(Errno::EXIST) => {
                let stat = step(
                    "look at",
                    fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW),
                )?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    hides = is_whiteout(&stat);
                    step("replace", self.tree.remove(parent, name))?;
                    step("make", fs::mkdirat(parent, name, mode))?;
                    self.bytes += BLOCK;
                }
            }
            Err(errno) => return Err(("make", errno)),
        }
        let folder = Rc::new(step("open", open_folder(parent, name))?);
        if hides {
            step("make opaque", make_opaque(&folder))?;
        }
        if self.implied.remove(path) {
            self.memory -= PATH_COST + path.len() as u64;
        }
        self.tree.remember(path, &folder);
        self.folder_metadata(&folder, path, entry)
    }

    fn folder_metadata(&mut self, folder: &OwnedFd, path: &[u8], entry: &Entry) -> Step {
        step(
            "set the owner of",
            errno(joey_failpoint::hit("layer.folder.change")),
        )?;
        step(
            "set the owner of",
            fs::fchown(folder, Some(uid(entry)), Some(gid(entry))),
        )?;
        step("set the mode of", fs::fchmod(folder, mode(entry)))?;
        for (name, value) in usable_xattrs(entry, true) {
            step(SET_XATTR, set_xattr(folder, name, value))?;
        }
        if self
            .folder_times
            .insert(path.to_vec(), entry.mtime)
            .is_none()
        {
            self.memory += PATH_COST + path.len() as u64;
        }
        Ok(())
    }

    /// Makes a new empty file in place of whatever has the name.
    fn create(&mut self, parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd, (&'static str, Errno)> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || fs::openat(parent, name, flags, Mode::from_raw_mode(0o600));
        step("create", errno(joey_failpoint::hit("layer.file.create")))?;
        let file = match open() {
            Err(Errno::EXIST) => {
                step("replace", self.tree.remove(parent, name))?;
                step("create", open())?
            }
            opened => {
                self.inodes += 1;
                step("create", opened)?
            }
        };
        Ok(file)
    }

    fn copy<R: Read>(
        &mut self,
        file: &OwnedFd,
        entry: &Entry,
        reader: &mut TarReader<R>,
        failed: &impl Fn((&'static str, Errno)) -> UnpackError,
    ) -> Result<(), UnpackError> {
        let write_failed = |errno| failed(("write", errno));
        let mut reached = 0;
        for (offset, length) in &entry.parts {
            let mut at = *offset;
            let end = offset + length;
            while at < end {
                let want = usize::try_from(end - at)
                    .map_or(self.buffer.len(), |left| left.min(self.buffer.len()));
                let got = reader.read_data(&mut self.buffer[..want])?;
                errno(joey_failpoint::hit("layer.file.write")).map_err(write_failed)?;
                let mut data = &self.buffer[..got];
                while !data.is_empty() {
                    let written = match rustix::io::pwrite(file, data, at) {
                        Err(Errno::INTR) => continue,
                        written => written.map_err(write_failed)?,
                    };
                    data = &data[written..];
                    at += written as u64;
                }
            }
            // A sparse file's last part may be empty: it only marks the end.
            if *length > 0 {
                reached = end;
            }
            self.bytes += length.next_multiple_of(BLOCK);
        }
        if entry.size > reached {
            fs::ftruncate(file, entry.size).map_err(write_failed)?;
        }
        Ok(())
    }

    fn hard_link(&mut self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> Step {
        let target = tree::clean(&entry.link)
            .filter(|target| !target.is_empty())
            .ok_or(("link", Errno::INVAL))?;
        let (folder_path, target_name) = tree::split(&target);
        let folder = step("find the target of", self.tree.folder(folder_path))?;
        step("link", errno(joey_failpoint::hit("layer.link.create")))?;
        let link = || fs::linkat(&*folder, target_name, parent, name, AtFlags::empty());
        match link() {
            Err(Errno::EXIST) => {
                if same_file(&folder, target_name, parent, name) {
                    return Ok(());
                }
                step("replace", self.tree.remove(parent, name))?;
                step("link", link())
            }
            done => step("link", done),
        }
    }

    fn special(&mut self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> Step {
        let make = || match entry.kind {
            EntryType::Symlink => {
                if entry.link.is_empty() || entry.link.len() > tree::MAX_PATH {
                    return Err(Errno::INVAL);
                }
                fs::symlinkat(entry.link.as_slice(), parent, name)
            }
            kind => {
                let (file_type, device) = match kind {
                    EntryType::Char => (FileType::CharacterDevice, entry.device),
                    EntryType::Block => (FileType::BlockDevice, entry.device),
                    _ => (FileType::Fifo, (0, 0)),
                };
                let device = fs::makedev(device.0, device.1);
                fs::mknodat(parent, name, file_type, Mode::from_raw_mode(0o600), device)
            }
        };
        step("create", errno(joey_failpoint::hit("layer.special.create")))?;
        match make() {
            Err(Errno::EXIST) => {
                step("replace", self.tree.remove(parent, name))?;
                step("create", make())?;
            }
            made => {
                step("create", made)?;
                self.inodes += 1;
            }
        }
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        step(
            "set the owner of",
            fs::chownat(parent, name, Some(uid(entry)), Some(gid(entry)), nofollow),
        )?;
        if entry.kind != EntryType::Symlink {
            // Just made and no link, so nothing is followed.
            step(
                "set the mode of",
                fs::chmodat(parent, name, mode(entry), AtFlags::empty()),
            )?;
        }
        for (xattr, value) in usable_xattrs(entry, false) {
            let path = tree::proc_path(parent.as_fd(), name);
            let set = fs::lsetxattr(path, xattr, value, XattrFlags::empty());
            step(SET_XATTR, tolerate_unsupported(set))?;
        }
        step(
            "set the time of",
            fs::utimensat(parent, name, &times(entry.mtime), nofollow),
        )
    }

    fn set_folder_times(&mut self) -> Result<(), UnpackError> {
        for (path, mtime) in std::mem::take(&mut self.folder_times) {
            let folder = if path.is_empty() {
                Ok(self.tree.root())
            } else {
                let (parent, name) = tree::split(&path);
                self.tree
                    .folder(parent)
                    .and_then(|parent| open_folder(&parent, name).map(Rc::new))
            };
            let set = match folder {
                Ok(folder) => errno(joey_failpoint::hit("layer.folder.time"))
                    .and_then(|()| fs::futimens(&*folder, &times(mtime))),
                // A later entry took the folder's place.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
                Err(errno) => Err(errno),
            };
            set.map_err(|source| UnpackError::Entry {
                action: "set the time of",
                path: String::from_utf8_lossy(&path).into_owned(),
                source,
            })?;
        }
        Ok(())
    }
}

fn open_folder(parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(parent, name, flags, Mode::empty())
}

fn make_whiteout(parent: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    errno(joey_failpoint::hit("layer.whiteout.create"))?;
    fs::mknodat(
        parent,
        name,
        FileType::CharacterDevice,
        Mode::empty(),
        fs::makedev(0, 0),
    )
}

fn make_opaque(folder: &OwnedFd) -> Result<(), Errno> {
    errno(joey_failpoint::hit("layer.folder.hide"))?;
    fs::fsetxattr(folder, OPAQUE_XATTR, b"y", XattrFlags::empty())
}

pub(super) fn is_whiteout(stat: &fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn same_file(folder: &OwnedFd, target: &[u8], parent: &OwnedFd, name: &[u8]) -> bool {
    let stat = |folder: &OwnedFd, name| fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
    match (stat(folder, target), stat(parent, name)) {
        (Ok(a), Ok(b)) => a.st_dev == b.st_dev && a.st_ino == b.st_ino,
        _ => false,
    }
}
