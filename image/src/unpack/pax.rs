//! PAX extended headers (POSIX.1-2001, `pax`), with the keys of GNU tar and star.

use std::collections::BTreeMap;

use rustix::fs::Timespec;

use super::{UnpackError, malformed};

/// Most bytes of one file's xattrs: those of global headers are copied for each entry. The kernel
/// takes 64 KiB of names and as much of one value, most file systems far less.
const MAX_XATTRS: usize = 128 << 10;
/// What an xattr takes besides its name and value.
const XATTR_COST: usize = 64;

/// What extended headers say about the entry that follows.
#[derive(Debug, Default, Clone)]
pub(super) struct Extended {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<Timespec>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Bytes of `xattrs`, with what each costs besides.
    xattr_bytes: usize,
    pub sparse_name: Option<Vec<u8>>,
    pub sparse_size: Option<u64>,
    pub sparse_major: Option<u64>,
    /// A sparse file in one of the older forms.
    pub sparse_old: bool,
}

impl Extended {
    fn set_xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), UnpackError> {
        let cost = |value: &[u8]| XATTR_COST + name.len() + value.len();
        self.xattr_bytes += cost(value);
        if let Some(old) = self.xattrs.insert(name.to_vec(), value.to_vec()) {
            self.xattr_bytes -= cost(&old);
        }
        if self.xattr_bytes > MAX_XATTRS {
            return Err(UnpackError::Limit {
                what: "bytes of xattrs on one file",
                limit: MAX_XATTRS as u64,
            });
        }
        Ok(())
    }
}

/// Reads PAX records: `length key=value\n`, the length counting the whole record.
pub(super) fn parse(mut data: &[u8], into: &mut Extended) -> Result<(), UnpackError> {
    let bad = || malformed("a malformed PAX record");
    while !data.is_empty() && data[0] != 0 {
        let space = data.iter().position(|b| *b == b' ').ok_or_else(bad)?;
        let length: usize = parse_number(&data[..space]).ok_or_else(bad)?;
        if length <= space + 1 || length > data.len() || data[length - 1] != b'\n' {
            return Err(bad());
        }
        let record = &data[space + 1..length - 1];
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
        pax_record(&record[..equals], &record[equals + 1..], into)?;
        data = &data[length..];
    }
    Ok(())
}

fn pax_record(key: &[u8], value: &[u8], into: &mut Extended) -> Result<(), UnpackError> {
    let number =
        || parse_number::<u64>(value).ok_or_else(|| malformed("a PAX record whose number is none"));
    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
        return into.set_xattr(name, value);
    }
    match key {
        b"path" => into.path = Some(value.to_vec()),
        b"linkpath" => into.link = Some(value.to_vec()),
        b"size" => into.size = Some(number()?),
        b"uid" => into.uid = Some(number()?),
        b"gid" => into.gid = Some(number()?),
        b"mtime" => into.mtime = Some(parse_time(value).ok_or_else(|| malformed("a bad mtime"))?),
        b"GNU.sparse.name" => into.sparse_name = Some(value.to_vec()),
        b"GNU.sparse.realsize" => into.sparse_size = Some(number()?),
        b"GNU.sparse.major" => {
            let major = number()?;
            into.sparse_major = Some(major);
            into.sparse_old |= major != 1;
        }
        b"GNU.sparse.map" | b"GNU.sparse.numblocks" => into.sparse_old = true,
        _ => {}
    }
    Ok(())
}

fn parse_number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds since the epoch with an optional fraction, possibly negative.
fn parse_time(text: &[u8]) -> Option<Timespec> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanos: i64 = digits.parse().ok()?;
    Some(match (whole.starts_with('-'), nanos) {
        (true, 1..) => Timespec {
            tv_sec: seconds.checked_sub(1)?,
            tv_nsec: 1_000_000_000 - nanos,
        },
        (_, nanos) => Timespec {
            tv_sec: seconds,
            tv_nsec: nanos,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_nanoseconds_and_may_be_before_the_epoch() {
        let time = |text: &str| parse_time(text.as_bytes()).map(|t| (t.tv_sec, t.tv_nsec));
        assert_eq!(time("12.5"), Some((12, 500_000_000)));
        assert_eq!(time("12"), Some((12, 0)));
        assert_eq!(time("1.1234567899"), Some((1, 123_456_789)));
        assert_eq!(time("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time("x"), None);
        assert_eq!(time("1.x"), None);
    }

    #[test]
    fn pax_values_may_be_binary() {
        let mut extended = Extended::default();
        let mut record = b"SCHILY.xattr.user.a=1\n2\x003".to_vec();
        record.push(b'\n');
        let length = record.len() + 3;
        let mut data = format!("{length} ").into_bytes();
        data.extend(record);
        parse(&data, &mut extended).unwrap();
        assert_eq!(
            extended.xattrs,
            BTreeMap::from([(b"user.a".to_vec(), b"1\n2\x003".to_vec())])
        );
        for bad in ["x", "5 a=b", "99 a=b\n", "6 ab\n\n", "3 \n", "-1 a=b\n"] {
            assert!(parse(bad.as_bytes(), &mut extended).is_err(), "{bad:?}");
        }
    }
}
