//! These make devices, owners and trusted xattrs: they need root.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use rustix::fs as rfs;
use tar::{Builder, EntryType, Header};

use super::*;

mod hostile;

struct Tar(Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn header(kind: EntryType, path: &[u8], link: &[u8], size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(size);
        // The setters refuse what a hostile writer would not.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path);
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link);
        header.set_cksum();
        header
    }

    fn raw(mut self, header: &Header, data: &[u8]) -> Self {
        self.0.append(header, data).unwrap();
        self
    }

    fn file(self, path: &str, data: &[u8]) -> Self {
        let header = Self::header(EntryType::Regular, path.as_bytes(), b"", data.len() as u64);
        self.raw(&header, data)
    }

    fn dir(self, path: &str, mode: u32, owner: u64) -> Self {
        let mut header = Self::header(EntryType::Directory, path.as_bytes(), b"", 0);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_cksum();
        self.raw(&header, b"")
    }

    fn link(self, kind: EntryType, path: &str, target: &str) -> Self {
        let header = Self::header(kind, path.as_bytes(), target.as_bytes(), 0);
        self.raw(&header, b"")
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let body = key.len() + value.len() + 3;
            let mut length = body + 1;
            while length != body + length.to_string().len() {
                length += 1;
            }
            data.extend(format!("{length} {key}=").into_bytes());
            data.extend(*value);
            data.push(b'\n');
        }
        let header = Self::header(EntryType::XHeader, b"pax", b"", data.len() as u64);
        self.raw(&header, &data)
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }

    fn unpack(self) -> Result<(tempfile::TempDir, Unpacked), UnpackError> {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let unpacked = unpack(self.bytes().as_slice(), &root, &UnpackLimits::default())?;
        // Whatever the tar said, nothing is beside the root.
        assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 1);
        Ok((outer, unpacked))
    }
}

fn at(outer: &tempfile::TempDir, path: &str) -> PathBuf {
    outer.path().join("root").join(path)
}

fn opaque(path: &std::path::Path) -> bool {
    let mut value = [0u8; 4];
    rfs::lgetxattr(path, "trusted.overlay.opaque", &mut value[..]) == Ok(1)
}

fn whiteout(path: &std::path::Path) -> bool {
    let metadata = std::fs::symlink_metadata(path).unwrap();
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

#[test]
fn files_keep_owner_mode_and_time_to_the_nanosecond() {
    let mut header = Tar::header(EntryType::Regular, b"bin/su", b"", 2);
    header.set_mode(0o4755);
    header.set_uid(12);
    header.set_gid(34);
    header.set_cksum();
    let (dir, unpacked) = Tar::new()
        .dir("bin/", 0o751, 7)
        .pax(&[("mtime", b"1234567890.123456789")])
        .raw(&header, b"su")
        .unpack()
        .unwrap();
    let file = std::fs::metadata(at(&dir, "bin/su")).unwrap();
    assert_eq!((file.uid(), file.gid()), (12, 34));
    assert_eq!(file.mode() & 0o7777, 0o4755);
    assert_eq!(
        (file.mtime(), file.mtime_nsec()),
        (1_234_567_890, 123_456_789)
    );
    let folder = std::fs::metadata(at(&dir, "bin")).unwrap();
    assert_eq!((folder.mode() & 0o7777, folder.uid()), (0o751, 7));
    assert_eq!(
        folder.mtime(),
        1_000_000_000,
        "set after its entries were made"
    );
    assert!(unpacked.implied.is_empty());
    assert_eq!((unpacked.inodes, unpacked.bytes), (3, 3 * 4096));
}

#[test]
fn every_kind_of_entry_is_made() {
    let mut device = Tar::header(EntryType::Char, b"dev/null", b"", 0);
    device.set_device_major(1).unwrap();
    device.set_device_minor(3).unwrap();
    device.set_cksum();
    let (dir, _) = Tar::new()
        .file("a", b"data")
        .link(EntryType::Link, "hard", "/a")
        .link(EntryType::Symlink, "soft", "../../a")
        .link(EntryType::Fifo, "pipe", "")
        .raw(&device, b"")
        .unpack()
        .unwrap();
    let ino = |path| std::fs::symlink_metadata(at(&dir, path)).unwrap().ino();
    assert_eq!(ino("a"), ino("hard"));
    assert_eq!(
        std::fs::read_link(at(&dir, "soft")).unwrap(),
        PathBuf::from("../../a")
    );
    assert!(
        std::fs::symlink_metadata(at(&dir, "pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    let null = std::fs::symlink_metadata(at(&dir, "dev/null")).unwrap();
    assert_eq!(null.rdev(), rfs::makedev(1, 3));
    assert_eq!(null.mtime(), 1_000_000_000);
}

#[test]
fn whiteouts_become_overlays_own() {
    let (dir, _) = Tar::new()
        .dir("etc/", 0o755, 0)
        .file("etc/.wh.gone", b"")
        .file("etc/sub/.wh..wh..opq", b"")
        .file("etc/.wh..wh.plnk", b"")
        .file("kept", b"1")
        .file(".wh.kept", b"")
        .file(".wh.again", b"")
        .dir("again/", 0o755, 0)
        .unpack()
        .unwrap();
    assert!(whiteout(&at(&dir, "etc/gone")));
    assert!(opaque(&at(&dir, "etc/sub")));
    assert!(!at(&dir, "etc/.wh..wh.plnk").exists());
    assert_eq!(std::fs::read(at(&dir, "kept")).unwrap(), b"1");
    assert!(opaque(&at(&dir, "again")), "hides what is below");
    for bad in [".wh.", ".wh...", "x/.wh."] {
        assert!(Tar::new().file(bad, b"").unpack().is_err(), "{bad}");
    }
}

#[test]
fn later_entries_replace_earlier_ones() {
    let (dir, _) = Tar::new()
        .dir("d/", 0o755, 0)
        .file("d/x/y", b"")
        .file("d", b"now a file")
        .file("f", b"1")
        .file("f", b"22")
        .link(EntryType::Link, "same", "f")
        .link(EntryType::Link, "same", "f")
        .unpack()
        .unwrap();
    assert_eq!(std::fs::read(at(&dir, "d")).unwrap(), b"now a file");
    assert_eq!(std::fs::read(at(&dir, "f")).unwrap(), b"22");
    assert_eq!(std::fs::metadata(at(&dir, "same")).unwrap().nlink(), 2);
}

#[test]
fn xattrs_are_set_but_overlays_own_are_not_the_images() {
    let capability: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let (dir, _) = Tar::new()
        .pax(&[
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.user.a", b"1\n2"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ])
        .file("ping", b"x")
        .unpack()
        .unwrap();
    let get = |name: &str| {
        let mut value = [0u8; 64];
        rfs::lgetxattr(at(&dir, "ping"), name, &mut value[..]).map(|n| value[..n].to_vec())
    };
    assert_eq!(get("security.capability").unwrap(), capability);
    assert_eq!(get("user.a").unwrap(), b"1\n2");
    get("trusted.overlay.redirect").unwrap_err();
}

#[test]
fn long_names_and_sparse_files_are_read() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let (dir, _) = Tar::new()
        .pax(&[("path", long.as_bytes())])
        .file("x", b"1")
        .unpack()
        .unwrap();
    assert!(at(&dir, &long).exists());
    let mut header = Tar::header(EntryType::GNUSparse, b"sparse", b"", 4);
    {
        let gnu = header.as_gnu_mut().unwrap();
        gnu.set_real_size(1 << 20);
        gnu.sparse[0].set_offset(4096);
        gnu.sparse[0].set_length(4);
        // How GNU tar marks the end of a file that ends in a hole.
        gnu.sparse[1].set_offset(1 << 20);
        gnu.sparse[1].set_length(0);
    }
    header.set_cksum();
    let (dir, unpacked) = Tar::new().raw(&header, b"data").unpack().unwrap();
    let content = std::fs::read(at(&dir, "sparse")).unwrap();
    assert_eq!(content.len(), 1 << 20);
    assert_eq!(&content[4096..4100], b"data");
    assert_eq!(unpacked.bytes, 2 * 4096);
    let mut map = b"1\n4096\n4\n".to_vec();
    map.resize(512, 0);
    map.extend(b"data");
    let (dir, _) = Tar::new()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"real"),
            ("GNU.sparse.realsize", b"8192"),
        ])
        .file("GNUSparseFile.0/real", &map)
        .unpack()
        .unwrap();
    let content = std::fs::read(at(&dir, "real")).unwrap();
    assert_eq!((content.len(), &content[4096..4100]), (8192, &b"data"[..]));
}

#[test]
fn implied_folders_look_as_below() {
    let (lowest, _) = Tar::new()
        .dir("a/", 0o750, 5)
        .dir("a/b/", 0o700, 6)
        .unpack()
        .unwrap();
    let (middle, _) = Tar::new().dir("a/", 0o711, 7).unpack().unwrap();
    let (top, unpacked) = Tar::new().file("a/b/c/file", b"").unpack().unwrap();
    let implied = ["a", "a/b", "a/b/c"].map(|path| path.as_bytes().to_vec());
    assert_eq!(unpacked.implied, BTreeSet::from(implied));
    let lowers = [at(&middle, ""), at(&lowest, "")];
    inherit(&at(&top, ""), &unpacked.implied, &lowers).unwrap();
    let look = |path: &str| {
        let metadata = std::fs::metadata(at(&top, path)).unwrap();
        (metadata.permissions().mode() & 0o7777, metadata.uid())
    };
    assert_eq!(look("a"), (0o711, 7));
    assert_eq!(look("a/b"), (0o700, 6));
    assert_eq!(look("a/b/c"), (0o755, 0));
}

#[test]
fn of_a_folder_that_comes_twice_the_last_entry_counts() {
    let at_time = |seconds: &'static [u8]| [("mtime", seconds)];
    let (dir, _) = Tar::new()
        .pax(&at_time(b"100"))
        .dir("d/", 0o700, 1)
        .file("d/f", b"")
        .pax(&at_time(b"200"))
        .dir("d/", 0o755, 2)
        .unpack()
        .unwrap();
    let folder = std::fs::metadata(at(&dir, "d")).unwrap();
    let look = (folder.mode() & 0o7777, folder.uid(), folder.mtime());
    assert_eq!(look, (0o755, 2, 200));
    assert!(at(&dir, "d/f").exists());
}
