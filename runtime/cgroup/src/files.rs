//! Reading and writing the small files of a cgroup file system.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// A file of a group could not be used.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}", path.display())]
pub struct FileError {
    /// "read", "write 100 to" …
    pub action: String,
    /// The file.
    pub path: PathBuf,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

impl FileError {
    pub(crate) fn new(action: impl Into<String>, path: &Path, source: io::Error) -> Self {
        Self {
            action: action.into(),
            path: path.to_owned(),
            source,
        }
    }
}

/// Most files are far smaller; `cgroup.procs` of a big group is not.
const FIRST_READ: usize = 4096;

/// Replaces the content of `buffer` by the file's. Fewer system calls than `std::fs::read`, which
/// asks for the size first and probes the end with small reads.
pub(crate) fn read_into(path: &Path, buffer: &mut Vec<u8>) -> io::Result<()> {
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    buffer.resize(buffer.capacity().max(FIRST_READ), 0);
    let mut filled = 0;
    loop {
        if filled == buffer.len() {
            buffer.resize(buffer.len() * 2, 0);
        }
        match rustix::io::read(&fd, &mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => {
                buffer.clear();
                return Err(e.into());
            }
        }
    }
    buffer.truncate(filled);
    Ok(())
}

/// The content without blanks around it.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let mut buffer = Vec::new();
    read_into(path, &mut buffer)?;
    let text = String::from_utf8(buffer).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(text.trim().to_owned())
}

/// A file holding one number; `max` is `u64::MAX`.
pub(crate) fn read_number(path: &Path) -> Option<u64> {
    let mut buffer = [0u8; 32];
    let mut file = File::open(path).ok()?;
    let n = file.read(&mut buffer).ok()?;
    number(buffer.get(..n)?)
}

/// Decimal digits with blanks around them; `max` is `u64::MAX`.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    match text.trim_ascii() {
        b"max" => Some(u64::MAX),
        digits => std::str::from_utf8(digits).ok()?.parse().ok(),
    }
}

/// One `write(2)` of the whole value into an existing file.
pub(crate) fn write(path: &Path, value: &str) -> io::Result<()> {
    joey_failpoint::hit("cgroup.write")?;
    let file = std::fs::OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(path)?;
    loop {
        match rustix::io::write(&file, value.as_bytes()) {
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
            Ok(n) if n == value.len() => return Ok(()),
            Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
        }
    }
}

/// Whether the error says that the group itself is gone.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_are_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("procs");
        let text = (0..20_000).map(|n| format!("{n}\n")).collect::<String>();
        std::fs::write(&path, &text).unwrap();
        assert_eq!(read(&path).unwrap(), text.trim());
    }

    #[test]
    fn numbers_are_read_with_their_newline() {
        assert_eq!(number(b"12\n"), Some(12));
        assert_eq!(number(b"max\n"), Some(u64::MAX));
        assert_eq!(number(b"-1\n"), None);
        assert_eq!(number(b""), None);
    }

    #[test]
    fn a_write_never_makes_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = write(&dir.path().join("memory.max"), "1").unwrap_err();
        assert!(is_gone(&error));
    }
}
