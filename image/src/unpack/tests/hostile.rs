//! Layers made to harm.

use std::io::{self, Read};

use super::super::tar_reader::TarReader;
use super::*;

#[test]
fn hostile_paths_stay_inside() {
    let (dir, _) = Tar::new()
        .file("../../escape", b"1")
        .file("/abs/file", b"2")
        .link(EntryType::Symlink, "evil", "/")
        .file("evil/planted", b"3")
        .link(EntryType::Symlink, "up", "../../../../../..")
        .file("up/planted2", b"4")
        .unpack()
        .unwrap();
    for (path, data) in [
        ("escape", b"1"),
        ("abs/file", b"2"),
        ("planted", b"3"),
        ("planted2", b"4"),
    ] {
        assert_eq!(std::fs::read(at(&dir, path)).unwrap(), data, "{path}");
    }
    assert!(!std::path::Path::new("/planted").exists());
}

#[test]
fn hostile_links_reach_nothing_outside() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    let target = secret.path().to_str().unwrap();
    // A hard link to a file of the host.
    Tar::new()
        .link(EntryType::Link, "h", target)
        .unpack()
        .unwrap_err();
    Tar::new()
        .link(EntryType::Symlink, "s", "/tmp")
        .link(EntryType::Link, "h", &format!("s/{target}"))
        .unpack()
        .unwrap_err();
    // Writing through a link to a file: the link is replaced, its target untouched.
    let (dir, _) = Tar::new()
        .link(EntryType::Symlink, "f", target)
        .file("f", b"overwritten")
        .unpack()
        .unwrap();
    assert!(std::fs::symlink_metadata(at(&dir, "f")).unwrap().is_file());
    assert_eq!(std::fs::metadata(secret.path()).unwrap().len(), 0);
    // A folder in a link's place.
    let (dir, _) = Tar::new()
        .link(EntryType::Symlink, "d", "/tmp")
        .dir("d/", 0o700, 99)
        .unpack()
        .unwrap();
    assert!(std::fs::symlink_metadata(at(&dir, "d")).unwrap().is_dir());
    assert_ne!(std::fs::metadata("/tmp").unwrap().uid(), 99);
}

#[test]
fn whiteouts_through_links_reach_nothing_outside() {
    let host = tempfile::tempdir().unwrap();
    let target = host.path().to_str().unwrap();
    std::fs::write(host.path().join("file"), b"kept").unwrap();
    Tar::new()
        .link(EntryType::Symlink, "evil", target)
        .file("evil/.wh.file", b"")
        .unpack()
        .unwrap_err();
    // The folder is in the layer too: what is there is meant.
    let inside = format!("{}/", target.trim_start_matches('/'));
    let (dir, _) = Tar::new()
        .dir(&inside, 0o755, 0)
        .link(EntryType::Symlink, "evil", target)
        .file("evil/.wh.file", b"")
        .file("evil/.wh..wh..opq", b"")
        .file(".wh.evil", b"")
        .unpack()
        .unwrap();
    assert!(whiteout(&at(&dir, &inside).join("file")));
    assert!(opaque(&at(&dir, &inside)));
    assert!(
        std::fs::symlink_metadata(at(&dir, "evil"))
            .unwrap()
            .is_symlink()
    );
    assert_eq!(std::fs::read(host.path().join("file")).unwrap(), b"kept");
    assert!(!opaque(host.path()));
}

#[test]
fn bounds_hold() {
    let limits = UnpackLimits {
        bytes: 1 << 20,
        entries: 3,
        memory: 1 << 20,
    };
    let try_unpack = |tar: Tar| {
        let dir = tempfile::tempdir().unwrap();
        unpack(tar.bytes().as_slice(), dir.path(), &limits)
    };
    let many = Tar::new()
        .file("a", b"")
        .file("b", b"")
        .file("c", b"")
        .file("d", b"");
    assert!(matches!(try_unpack(many), Err(UnpackError::Limit { .. })));
    let mut huge = Tar::header(EntryType::Regular, b"a", b"", 1 << 40);
    huge.set_cksum();
    let huge = Tar::new().raw(&huge, b"");
    assert!(matches!(try_unpack(huge), Err(UnpackError::Limit { .. })));
    let extended = Tar::header(EntryType::XHeader, b"x", b"", 2 << 20);
    let extended = Tar::new().raw(&extended, &vec![b' '; 2 << 20]);
    assert!(matches!(
        try_unpack(extended),
        Err(UnpackError::Limit { .. })
    ));
    let mut owner = Tar::header(EntryType::Regular, b"a", b"", 0);
    owner.set_uid(u64::from(u32::MAX));
    owner.set_cksum();
    try_unpack(Tar::new().raw(&owner, b"")).unwrap_err();
}

fn unpack_within(tar: Tar, limits: &UnpackLimits) -> Result<Unpacked, UnpackError> {
    let dir = tempfile::tempdir().unwrap();
    unpack(tar.bytes().as_slice(), dir.path(), limits)
}

#[track_caller]
fn assert_limit(result: Result<Unpacked, UnpackError>, what: &str) {
    match result {
        Err(UnpackError::Limit { what: found, .. }) => assert_eq!(found, what),
        other => panic!("{other:?}"),
    }
}

/// One small header that makes many folders.
fn deep(tar: Tar, top: usize) -> Tar {
    let path = format!("{top}/{}", "a/".repeat(1500));
    tar.pax(&[("path", path.as_bytes())]).file("x", b"")
}

#[test]
fn folders_without_entries_are_bounded() {
    let limits = UnpackLimits {
        entries: 4000,
        ..UnpackLimits::default()
    };
    let tar = (0..3).fold(Tar::new(), deep);
    assert_limit(unpack_within(tar, &limits), "files and folders");
    let limits = UnpackLimits {
        memory: 3 << 20,
        ..UnpackLimits::default()
    };
    let tar = (0..3).fold(Tar::new(), deep);
    assert_limit(unpack_within(tar, &limits), "bytes of folders' names");
    unpack_within(deep(Tar::new(), 0), &limits).unwrap();
}

#[test]
fn times_of_folders_are_bounded() {
    let limits = UnpackLimits {
        memory: 64 << 10,
        ..UnpackLimits::default()
    };
    let name = "d".repeat(90);
    let again = (0..2000).fold(Tar::new(), |tar, _| tar.dir(&name, 0o755, 0));
    assert_eq!(unpack_within(again, &limits).unwrap().inodes, 2);
    let others = (0..2000).fold(Tar::new(), |tar, number| {
        tar.dir(&format!("{name}{number}"), 0o755, 0)
    });
    assert_limit(unpack_within(others, &limits), "bytes of folders' names");
}

#[test]
fn xattrs_are_bounded_over_all_headers_of_a_file() {
    let value = vec![b'v'; 100 << 10];
    let limits = UnpackLimits::default();
    let xattr = |tar: Tar, number: usize| {
        let key = format!("SCHILY.xattr.user.{number}");
        tar.pax(&[(key.as_str(), value.as_slice())])
    };
    let tar = (0..2).fold(Tar::new(), xattr).file("f", b"");
    assert_limit(unpack_within(tar, &limits), "bytes of xattrs on one file");
    // The same name again takes no more.
    let tar = (0..9).fold(Tar::new(), |tar, _| xattr(tar, 0));
    let mut reader = TarReader::new(tar.bytes().leak() as &[u8], &limits);
    assert!(reader.next().unwrap().is_none());
    let global = Tar::header(EntryType::XGlobalHeader, b"g", b"", 102_430);
    let record = |number: usize| {
        let mut record = format!("102430 SCHILY.xattr.user.{number}=").into_bytes();
        record.resize(102_429, b'v');
        record.push(b'\n');
        record
    };
    let tar = Tar::new()
        .raw(&global, &record(1))
        .raw(&global, &record(2))
        .file("f", b"");
    assert_limit(unpack_within(tar, &limits), "bytes of xattrs on one file");
    let many: Vec<_> = (0..5000)
        .map(|n| format!("SCHILY.xattr.user.{n}"))
        .collect();
    let many: Vec<_> = many.iter().map(|key| (key.as_str(), &b""[..])).collect();
    let tar = Tar::new().pax(&many).file("f", b"");
    assert_limit(unpack_within(tar, &limits), "bytes of xattrs on one file");
}

/// A tar that does not end, of entries that make nothing.
struct Endless {
    header: Header,
    at: usize,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let header = &self.header.as_bytes()[self.at..];
        let count = header.len().min(buffer.len());
        buffer[..count].copy_from_slice(&header[..count]);
        self.at = (self.at + count) % self.header.as_bytes().len();
        Ok(count)
    }
}

#[test]
fn millions_of_entries_end_at_the_bound() {
    let header = Tar::header(EntryType::Regular, b".wh..wh.x", b"", 0);
    let limits = UnpackLimits {
        entries: 200_000,
        ..UnpackLimits::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let endless = Endless { header, at: 0 };
    assert_limit(unpack(endless, dir.path(), &limits), "entries");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

fn gnu_sparse(size: u64, data: u64, parts: &[(u64, u64)]) -> Tar {
    let mut header = Tar::header(EntryType::GNUSparse, b"sparse", b"", data);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(size);
    for (slot, (offset, length)) in gnu.sparse.iter_mut().zip(parts) {
        slot.set_offset(*offset);
        slot.set_length(*length);
    }
    header.set_cksum();
    let data = vec![1; usize::try_from(data).unwrap()];
    Tar::new().raw(&header, &data)
}

fn pax_sparse(size: &[u8], map: &[u8]) -> Tar {
    Tar::new()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.name", b"real"),
            ("GNU.sparse.realsize", size),
        ])
        .file("x", map)
}

#[test]
fn hostile_sparse_maps_are_refused() {
    let refused = |tar: Tar, why: &str| {
        let error = unpack_within(tar, &UnpackLimits::default()).unwrap_err();
        assert!(error.to_string().contains(why), "{error} and not {why}");
    };
    refused(gnu_sparse(100, 20, &[(0, 10), (5, 10)]), "overlap");
    refused(gnu_sparse(100, 20, &[(50, 10), (0, 10)]), "overlap");
    refused(gnu_sparse(100, 10, &[(95, 10)]), "behind its end");
    refused(
        gnu_sparse(100, 10, &[(u64::MAX >> 1, 10)]),
        "behind its end",
    );
    refused(gnu_sparse(100, 10, &[(0, 20)]), "does not fit its data");
    refused(
        gnu_sparse(u64::MAX >> 1, 10, &[(0, 10)]),
        "does not fit its data",
    );
    let line = |number: &str| {
        let mut block = format!("{number}\n").into_bytes();
        block.resize(512, b'0');
        block
    };
    refused(pax_sparse(b"100", &line("70000")), "too many parts");
    refused(
        pax_sparse(b"100", &line("99999999999999999999")),
        "out of range",
    );
    refused(pax_sparse(b"100", &[b'0'; 4096]), "does not end");
    refused(pax_sparse(b"100", b"1\n0\n"), "does not end");
    let no_size = Tar::new()
        .pax(&[("GNU.sparse.major", b"1")])
        .file("x", &line("0"));
    refused(no_size, "without its size");
    let old = Tar::new()
        .pax(&[("GNU.sparse.map", b"0,10")])
        .file("x", b"0123456789");
    refused(old, "not supported");
}

#[test]
fn broken_tars_are_errors_and_not_panics() {
    let good = Tar::new().file("a", &[1; 2000]).dir("d/", 0o755, 0).bytes();
    let broken = |tar: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        unpack(tar, dir.path(), &UnpackLimits::default()).is_err()
    };
    for cut in (1..3500).step_by(97) {
        // Within a header, within the file's data, or within the end.
        let torn = matches!(cut, 1..=2511 | 2561..=3071 | 3073..=3583);
        assert_eq!(broken(&good[..cut]), torn, "cut at {cut}");
    }
    for position in (0..512).step_by(3) {
        let mut bad = good.clone();
        bad[position] ^= 0x55;
        // The checksum's own last bytes are blank.
        assert!(broken(&bad) || (154..156).contains(&position), "{position}");
    }
}
