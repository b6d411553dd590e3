//! A layer's tar, entry by entry: valid headers with hostile names, links and order.
#![no_main]

use std::fmt::Write as _;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tar::{Builder, EntryType, Header};

#[derive(Debug, Arbitrary)]
enum Kind {
    File,
    Folder,
    Symlink,
    Hardlink,
    Device,
    Fifo,
    Global,
    Sparse,
}

/// Few names, so that entries meet.
#[derive(Debug, Arbitrary)]
enum Part {
    A,
    B,
    C,
    Outside,
    File,
    Dot,
    DotDot,
    Empty,
    Whiteout,
    Opaque,
    Aufs,
    Proc,
    Long,
}

#[derive(Debug, Arbitrary)]
struct Entry {
    kind: Kind,
    absolute: bool,
    name: Vec<Part>,
    link_absolute: bool,
    link: Vec<Part>,
    mode: u16,
    size: u8,
    /// What the header says over what there is.
    lie: u8,
    pax: Option<(String, Vec<u8>)>,
}

fn path(absolute: bool, parts: &[Part]) -> Vec<u8> {
    let mut text = String::new();
    for (place, part) in parts.iter().take(12).enumerate() {
        if absolute || place > 0 {
            text.push('/');
        }
        text.push_str(match part {
            Part::A => "a",
            Part::B => "b",
            Part::C => "c",
            Part::Outside => "outside",
            Part::File => "file",
            Part::Dot => ".",
            Part::DotDot => "..",
            Part::Empty => "",
            Part::Whiteout => ".wh.a",
            Part::Opaque => ".wh..wh..opq",
            Part::Aufs => ".wh..wh.plnk",
            Part::Proc => "/proc/self/cwd",
            Part::Long => "llllllllllllllllllllllllllllllllllllllllllllllllllll",
        });
    }
    text.into_bytes()
}

/// A header's field, cut at its length.
fn field(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

fn append(tar: &mut Builder<Vec<u8>>, entry: &Entry) {
    if let Some((key, value)) = &entry.pax {
        let mut record = format!(" {key}=").into_bytes();
        record.extend(value);
        record.push(b'\n');
        let mut length = String::new();
        let mut total = record.len();
        while length.len() + record.len() != total || length.is_empty() {
            length.clear();
            let _ = write!(length, "{total}");
            if length.len() + record.len() == total {
                break;
            }
            total = length.len() + record.len();
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_size(total as u64);
        field(&mut header.as_old_mut().name, b"pax");
        header.set_cksum();
        let _ = tar.append(&header, [length.as_bytes(), &record].concat().as_slice());
    }
    let mut header = Header::new_gnu();
    header.set_entry_type(match entry.kind {
        Kind::File => EntryType::Regular,
        Kind::Folder => EntryType::Directory,
        Kind::Symlink => EntryType::Symlink,
        Kind::Hardlink => EntryType::Link,
        Kind::Device => EntryType::Char,
        Kind::Fifo => EntryType::Fifo,
        Kind::Global => EntryType::XGlobalHeader,
        Kind::Sparse => EntryType::GNUSparse,
    });
    field(
        &mut header.as_old_mut().name,
        &path(entry.absolute, &entry.name),
    );
    field(
        &mut header.as_old_mut().linkname,
        &path(entry.link_absolute, &entry.link),
    );
    header.set_mode(u32::from(entry.mode));
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    let size = u64::from(entry.size);
    header.set_size(size + u64::from(entry.lie % 3));
    header.set_cksum();
    let content = vec![b'x'; usize::from(entry.size)];
    let _ = tar.append(&header, content.as_slice());
}

fuzz_target!(|entries: Vec<Entry>| {
    let mut tar = Builder::new(Vec::new());
    for entry in entries.iter().take(64) {
        append(&mut tar, entry);
    }
    if let Ok(tar) = tar.into_inner() {
        joey_fuzz::unpack(&tar);
    }
});
