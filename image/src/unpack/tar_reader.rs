//! Reading the entries of a tar: ustar, GNU long names and sparse files, PAX headers.
//!
//! The `tar` crate decodes header blocks; iteration is ours, because extended headers must have
//! bounds and may hold binary values.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Read};

use rustix::fs::Timespec;
use tar::{EntryType, Header};

use super::pax::{self, Extended};
use super::{UnpackError, UnpackLimits, malformed};

pub(super) const BLOCK: usize = 512;
/// Largest extended header (GNU long name, PAX records) read, in bytes.
const MAX_EXTENDED: u64 = 1 << 20;

/// One entry, its data still to be read.
#[derive(Debug)]
pub(super) struct Entry {
    /// As in the tar: neither clean nor safe.
    pub path: Vec<u8>,
    /// Target of a link, as in the tar.
    pub link: Vec<u8>,
    pub kind: EntryType,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Timespec,
    pub device: (u32, u32),
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Where the data goes, as (offset, length) in rising order.
    pub parts: Vec<(u64, u64)>,
    /// Size of the finished file.
    pub size: u64,
}

/// Reads a tar entry by entry.
#[derive(Debug)]
pub(super) struct TarReader<R> {
    inner: R,
    /// Bytes of the current entry's data not read yet.
    pub(super) left: u64,
    padding: u64,
    entries: u64,
    max_entries: u64,
    pub(super) max_bytes: u64,
    global: Extended,
}

impl<R: Read> TarReader<R> {
    pub fn new(inner: R, limits: &UnpackLimits) -> Self {
        Self {
            inner,
            left: 0,
            padding: 0,
            entries: 0,
            max_entries: limits.entries,
            max_bytes: limits.bytes,
            global: Extended::default(),
        }
    }

    /// The next entry; `None` at the end. Data of the entry before that was not read is skipped.
    pub fn next(&mut self) -> Result<Option<Entry>, UnpackError> {
        let mut extended = self.global.clone();
        loop {
            self.skip_data()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            self.entries += 1;
            if self.entries > self.max_entries {
                return Err(UnpackError::Limit {
                    what: "entries",
                    limit: self.max_entries,
                });
            }
            let size = if has_data(header.entry_type()) {
                number(header.entry_size())?
            } else {
                0
            };
            self.begin(size)?;
            match header.entry_type() {
                EntryType::GNULongName => extended.path = Some(until_nul(self.extended()?)),
                EntryType::GNULongLink => extended.link = Some(until_nul(self.extended()?)),
                EntryType::XHeader => {
                    let records = self.extended()?;
                    pax::parse(&records, &mut extended)?;
                }
                EntryType::XGlobalHeader => {
                    let records = self.extended()?;
                    let mut global = std::mem::take(&mut self.global);
                    pax::parse(&records, &mut global)?;
                    self.global = global;
                    extended = self.global.clone();
                }
                _ => return self.entry(&header, extended).map(Some),
            }
        }
    }

    /// Reads data of the current entry.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, UnpackError> {
        let want = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if want == 0 {
            return Ok(0);
        }
        let got = self
            .inner
            .read(&mut buffer[..want])
            .map_err(UnpackError::Read)?;
        if got == 0 {
            return Err(malformed("the tar ends inside a file"));
        }
        self.left -= got as u64;
        Ok(got)
    }

    fn begin(&mut self, size: u64) -> Result<(), UnpackError> {
        if size > self.max_bytes {
            return Err(UnpackError::Limit {
                what: "bytes in one file",
                limit: self.max_bytes,
            });
        }
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    fn skip_data(&mut self) -> Result<(), UnpackError> {
        let mut skip = self.left + self.padding;
        let mut sink = [0u8; 8 * BLOCK];
        while skip > 0 {
            let want = usize::try_from(skip).map_or(sink.len(), |skip| skip.min(sink.len()));
            let got = self
                .inner
                .read(&mut sink[..want])
                .map_err(UnpackError::Read)?;
            if got == 0 {
                // Some writers leave out the padding of the last entry.
                if skip <= self.padding {
                    break;
                }
                return Err(malformed("the tar ends inside a file"));
            }
            skip -= got as u64;
        }
        self.left = 0;
        self.padding = 0;
        Ok(())
    }

    /// A header block; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>, UnpackError> {
        let mut header = Header::new_old();
        let Some(()) = self.block(header.as_mut_bytes())? else {
            return Ok(None);
        };
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum: u32 = header
            .as_bytes()
            .iter()
            .enumerate()
            .map(|(index, byte)| match index {
                148..156 => u32::from(b' '),
                _ => u32::from(*byte),
            })
            .sum();
        match header.cksum() {
            Ok(stated) if stated == sum => Ok(Some(header)),
            _ => Err(malformed("a header has a wrong checksum")),
        }
    }

    pub(super) fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<Option<()>, UnpackError> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(malformed("the tar ends inside a header")),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(UnpackError::Read(error)),
            }
        }
        Ok(Some(()))
    }

    fn extended(&mut self) -> Result<Vec<u8>, UnpackError> {
        if self.left > MAX_EXTENDED {
            return Err(UnpackError::Limit {
                what: "bytes in an extended header",
                limit: MAX_EXTENDED,
            });
        }
        let mut data = Vec::new();
        let mut buffer = [0u8; 8 * BLOCK];
        loop {
            match self.read_data(&mut buffer)? {
                0 => return Ok(data),
                count => data.extend_from_slice(&buffer[..count]),
            }
        }
    }

    fn entry(&mut self, header: &Header, extended: Extended) -> Result<Entry, UnpackError> {
        let kind = header.entry_type();
        if let Some(size) = extended.size
            && kind != EntryType::GNUSparse
            && has_data(kind)
        {
            self.begin(size)?;
        }
        if extended.sparse_old {
            return Err(malformed("this form of sparse file is not supported"));
        }
        let (parts, size) = if kind == EntryType::GNUSparse {
            self.gnu_sparse(header)?
        } else if let Some(1) = extended.sparse_major {
            self.pax_sparse(extended.sparse_size)?
        } else {
            (vec![(0, self.left)], self.left)
        };
        Ok(Entry {
            path: match (extended.sparse_name, extended.path) {
                (Some(name), _) | (None, Some(name)) => name,
                (None, None) => header.path_bytes().into_owned(),
            },
            link: extended.link.unwrap_or_else(|| {
                let link = header.link_name_bytes();
                link.map(Cow::into_owned).unwrap_or_default()
            }),
            kind,
            mode: number(header.mode())? & 0o7777,
            uid: owner(extended.uid, header.uid())?,
            gid: owner(extended.gid, header.gid())?,
            mtime: extended.mtime.unwrap_or_else(|| Timespec {
                tv_sec: header_time(header),
                tv_nsec: 0,
            }),
            device: match kind {
                EntryType::Char | EntryType::Block => (
                    number(header.device_major())?.unwrap_or_default(),
                    number(header.device_minor())?.unwrap_or_default(),
                ),
                _ => (0, 0),
            },
            xattrs: extended.xattrs,
            parts,
            size,
        })
    }
}

/// Whatever size the others' headers tell, no data follows them: Go's reader, with which most images
/// are looked at, sees it so.
fn has_data(kind: EntryType) -> bool {
    !matches!(
        kind,
        EntryType::Link
            | EntryType::Symlink
            | EntryType::Char
            | EntryType::Block
            | EntryType::Directory
            | EntryType::Fifo
    )
}

/// A field of a header.
pub(super) fn number<T>(field: io::Result<T>) -> Result<T, UnpackError> {
    field.map_err(|error| malformed(error.to_string()))
}

fn owner(extended: Option<u64>, own: io::Result<u64>) -> Result<u32, UnpackError> {
    let id = extended.map_or_else(|| number(own), Ok)?;
    // The largest value means "leave as it is" to the kernel.
    u32::try_from(id)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| malformed(format!("owner {id} is out of range")))
}

/// GNU tar writes times before the epoch as negative binary numbers.
fn header_time(header: &Header) -> i64 {
    match header.as_old().mtime {
        [0xff, 0xff, 0xff, 0xff, low @ ..] => i64::from_be_bytes(low),
        _ => i64::try_from(header.mtime().unwrap_or_default()).unwrap_or_default(),
    }
}

fn until_nul(mut data: Vec<u8>) -> Vec<u8> {
    if let Some(end) = data.iter().position(|byte| *byte == 0) {
        data.truncate(end);
    }
    data
}
