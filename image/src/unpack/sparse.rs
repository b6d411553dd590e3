//! Maps of sparse files: where in a file the data of its entry goes.

use std::io::Read;

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::tar_reader::{BLOCK, TarReader, number};
use super::{UnpackError, malformed};

/// Most parts of a sparse file.
const MAX_SPARSE: usize = 64 << 10;

/// Offset and length of each part, and the size of the file.
type Map = (Vec<(u64, u64)>, u64);

impl<R: Read> TarReader<R> {
    /// The map of an old GNU sparse file: in the header, then in blocks before the data.
    pub(super) fn gnu_sparse(&mut self, header: &Header) -> Result<Map, UnpackError> {
        let gnu = header
            .as_gnu()
            .ok_or_else(|| malformed("a sparse file without a GNU header"))?;
        let size = number(gnu.real_size())?;
        let mut parts = Vec::new();
        add_parts(&gnu.sparse, &mut parts)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = GnuExtSparseHeader::new();
            if self.block(block.as_mut_bytes())?.is_none() {
                return Err(malformed("the tar ends inside a sparse map"));
            }
            add_parts(block.sparse(), &mut parts)?;
            more = block.is_extended();
        }
        self.checked_parts(parts, size)
    }

    /// The map of a PAX sparse file, format 1.0: decimal lines at the start of the data.
    pub(super) fn pax_sparse(&mut self, size: Option<u64>) -> Result<Map, UnpackError> {
        let size = size.ok_or_else(|| malformed("a sparse file without its size"))?;
        let mut numbers = Vec::new();
        let mut current: Option<u64> = None;
        let mut wanted = None;
        while wanted.is_none_or(|wanted| numbers.len() < wanted) {
            let mut block = [0u8; BLOCK];
            let mut filled = 0;
            while filled < BLOCK {
                match self.read_data(&mut block[filled..])? {
                    0 => return Err(malformed("a sparse map that does not end")),
                    count => filled += count,
                }
            }
            for byte in block {
                match byte {
                    b'0'..=b'9' => {
                        let digit = u64::from(byte - b'0');
                        current = current
                            .unwrap_or_default()
                            .checked_mul(10)
                            .and_then(|value| value.checked_add(digit));
                        if current.is_none() {
                            return Err(malformed("a sparse map with a number out of range"));
                        }
                    }
                    b'\n' => numbers.extend(current.take()),
                    _ => break,
                }
                if wanted.is_none() && !numbers.is_empty() {
                    let count = usize::try_from(numbers.remove(0)).unwrap_or(usize::MAX);
                    if count > MAX_SPARSE {
                        return Err(malformed("a sparse file of too many parts"));
                    }
                    wanted = Some(2 * count);
                }
                if wanted == Some(numbers.len()) {
                    break;
                }
            }
        }
        let parts = numbers
            .chunks_exact(2)
            .map(|pair| (pair[0], pair[1]))
            .collect();
        self.checked_parts(parts, size)
    }

    fn checked_parts(&self, parts: Vec<(u64, u64)>, size: u64) -> Result<Map, UnpackError> {
        let mut end = 0u64;
        let mut data = 0u64;
        for (offset, length) in &parts {
            if *offset < end {
                return Err(malformed("a sparse file whose parts overlap"));
            }
            end = offset
                .checked_add(*length)
                .filter(|end| *end <= size)
                .ok_or_else(|| malformed("a sparse file with a part behind its end"))?;
            data += length;
        }
        if data != self.left || size > self.max_bytes {
            return Err(malformed("a sparse file whose map does not fit its data"));
        }
        Ok((parts, size))
    }
}

fn add_parts(headers: &[GnuSparseHeader], parts: &mut Vec<(u64, u64)>) -> Result<(), UnpackError> {
    for header in headers.iter().filter(|header| !header.is_empty()) {
        parts.push((number(header.offset())?, number(header.length())?));
    }
    if parts.len() > MAX_SPARSE {
        return Err(malformed("a sparse file of too many parts"));
    }
    Ok(())
}
