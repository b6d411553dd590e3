//! The CRI log file of a container: `RFC3339Nano stdout|stderr P|F text`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest text of one entry, bytes; longer lines are split.
const MAX_TEXT: usize = 16 << 10;

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, and everything of a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// When a log goes on in a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Before it grows beyond this.
    pub max_bytes: u64,
    /// Files that are kept, with the current one.
    pub max_files: u32,
}

/// One open log file.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    /// None: somebody else rotates, or nobody.
    rotation: Option<Rotation>,
    /// The last write ended inside of an entry.
    torn: bool,
    batch: Vec<u8>,
}

/// The part of a line that has not ended yet.
#[derive(Debug, Default)]
pub struct Line(Vec<u8>);

fn open(path: &PathBuf) -> io::Result<File> {
    joey_failpoint::hit("log.open")?;
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

impl LogFile {
    /// Opens the file, making it.
    pub fn open(path: PathBuf, rotation: Option<Rotation>) -> io::Result<Self> {
        let file = open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path,
            file,
            size,
            rotation,
            torn: false,
            batch: Vec::new(),
        })
    }

    /// Goes on in a new file of the same name, after the old one was renamed.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file = open(&self.path)?;
        self.size = self.file.metadata()?.len();
        self.torn = false;
        Ok(())
    }

    /// Goes on in a new file where the present one would grow too large.
    fn make_room(&mut self, added: usize) {
        let Some(rotation) = self.rotation else {
            return;
        };
        let present = self.size + self.batch.len() as u64;
        if present > 0 && present + added as u64 > rotation.max_bytes {
            self.flush();
            self.rotate(rotation.max_files);
        }
    }

    /// Gives each file the next number and goes on in a new one. Where that fails the present file
    /// goes on growing: output is worth more than the limit, which is tried again only after as
    /// much again, so that a failing disk does not cost the older files.
    fn rotate(&mut self, max_files: u32) {
        self.size = 0;
        if !self.path.exists() {
            // Moved away by somebody, or by a rotation that could not open the new file.
            drop(self.reopen());
            return;
        }
        let numbered = |number: u32| {
            let mut path = self.path.clone().into_os_string();
            path.push(format!(".{number}"));
            PathBuf::from(path)
        };
        for number in (1..max_files.saturating_sub(1)).rev() {
            drop(fs::rename(numbered(number), numbered(number + 1)));
        }
        let moved = match max_files {
            0 | 1 => fs::remove_file(&self.path),
            _ => fs::rename(&self.path, numbered(1)),
        };
        if moved.is_ok() {
            drop(self.reopen());
        }
    }

    /// Writes what a container has written, whole lines and those that are too long; the rest
    /// waits in `line`.
    pub fn write(&mut self, stream: Stream, line: &mut Line, data: &[u8]) {
        let stamp = timestamp(SystemTime::now());
        let mut rest = data;
        while !rest.is_empty() {
            let room = MAX_TEXT - line.0.len();
            let end = rest.iter().take(room).position(|&byte| byte == b'\n');
            match end {
                Some(end) => {
                    self.entry(&stamp, stream, 'F', line, &rest[..end]);
                    rest = &rest[end + 1..];
                }
                // A line of exactly the longest length is whole when its end comes next.
                None if rest.len() > room && rest[room] == b'\n' => {
                    self.entry(&stamp, stream, 'F', line, &rest[..room]);
                    rest = &rest[room + 1..];
                }
                None if rest.len() > room => {
                    self.entry(&stamp, stream, 'P', line, &rest[..room]);
                    rest = &rest[room..];
                }
                None => {
                    line.0.extend_from_slice(rest);
                    break;
                }
            }
        }
        self.flush();
    }

    /// Writes a line that will never end.
    pub fn finish(&mut self, stream: Stream, line: &mut Line) {
        if !line.0.is_empty() {
            let stamp = timestamp(SystemTime::now());
            self.entry(&stamp, stream, 'P', line, &[]);
            self.flush();
        }
    }

    fn entry(&mut self, stamp: &str, stream: Stream, tag: char, line: &mut Line, text: &[u8]) {
        let name = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        let head = format!("{stamp} {name} {tag} ");
        self.make_room(head.len() + line.0.len() + text.len() + 1);
        self.batch.extend_from_slice(head.as_bytes());
        self.batch.append(&mut line.0);
        self.batch.extend_from_slice(text);
        self.batch.push(b'\n');
        if line.0.capacity() > 0 {
            line.0 = Vec::new();
        }
    }

    /// One write per batch. A full disk must never stop the container: what cannot be written is
    /// lost, and the next entry starts on a line of its own.
    fn flush(&mut self) {
        self.size += self.batch.len() as u64;
        let mut rest = self.batch.as_slice();
        if self.torn && !rest.is_empty() {
            self.torn = self.file.write_all(b"\n").is_err();
        }
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(written) if written > 0 => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => {
                    self.torn |= rest.len() < self.batch.len();
                    break;
                }
            }
        }
        self.batch.clear();
        self.batch.shrink_to(MAX_TEXT);
    }
}

/// RFC 3339 with nanoseconds, in UTC.
fn timestamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = since.as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days to a date by the proleptic Gregorian calendar, from 0000-03-01, in eras of 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let nanos = since.subsec_nanos();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(chunks: &[&[u8]]) -> Vec<String> {
        let path =
            std::env::temp_dir().join(format!("joey-log-{}-{:p}", std::process::id(), chunks));
        let mut log = LogFile::open(path.clone(), None).unwrap();
        let mut line = Line::default();
        for chunk in chunks {
            log.write(Stream::Stdout, &mut line, chunk);
        }
        log.finish(Stream::Stdout, &mut line);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        text.lines()
            .map(|line| line.split_once(' ').unwrap().1.to_owned())
            .collect()
    }

    #[test]
    fn lines_are_whole_and_the_last_without_an_end_is_partial() {
        assert_eq!(
            written(&[b"a\nb", b"c\n\nd"]),
            ["stdout F a", "stdout F bc", "stdout F ", "stdout P d"]
        );
    }

    #[test]
    fn long_lines_are_split_at_the_limit() {
        let long = vec![b'x'; MAX_TEXT];
        let whole = ["stdout F ", &"x".repeat(MAX_TEXT)].concat();
        assert_eq!(written(&[&long, b"\n"]), std::slice::from_ref(&whole));
        assert_eq!(written(&[&[long.as_slice(), b"\n"].concat()]), [whole]);
        let part = format!("stdout P {}", "x".repeat(MAX_TEXT));
        assert_eq!(
            written(&[&long, b"y\n"]),
            [part.clone(), "stdout F y".to_owned()]
        );
        assert_eq!(
            written(&[&[long.as_slice(), b"y\n"].concat()]),
            [part, "stdout F y".to_owned()]
        );
    }

    #[test]
    fn a_full_file_is_numbered_and_the_oldest_goes() {
        let folder = std::env::temp_dir().join(format!("joey-rotation-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("log");
        let rotation = Rotation {
            max_bytes: 100,
            max_files: 3,
        };
        let mut log = LogFile::open(path.clone(), Some(rotation)).unwrap();
        let mut line = Line::default();
        // Two entries of 43 bytes fill a file.
        log.write(Stream::Stdout, &mut line, b"00\n11\n22\n33\n44\n");
        for number in 5..9 {
            log.write(
                Stream::Stdout,
                &mut line,
                format!("{number}{number}\n").as_bytes(),
            );
        }
        let texts = |name: &str| -> Vec<String> {
            let text = fs::read_to_string(folder.join(name)).unwrap();
            let entries = text.lines().filter_map(|entry| entry.rsplit(' ').next());
            entries.map(str::to_owned).collect()
        };
        assert_eq!(texts("log"), ["88"]);
        assert_eq!(texts("log.1"), ["66", "77"]);
        assert_eq!(texts("log.2"), ["44", "55"]);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 3);
        // A new start goes on in the same file.
        let mut log = LogFile::open(path, Some(rotation)).unwrap();
        log.write(Stream::Stdout, &mut line, b"99\nxx\n");
        assert_eq!(texts("log"), ["xx"]);
        assert_eq!(texts("log.1"), ["88", "99"]);
        // A file that somebody removed comes back when it would have been full.
        fs::remove_file(folder.join("log")).unwrap();
        log.write(Stream::Stdout, &mut line, b"aa\nbb\n");
        assert_eq!(texts("log"), ["bb"]);
        assert_eq!(texts("log.1"), ["88", "99"]);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn timestamps_follow_the_calendar() {
        let at = |seconds| timestamp(UNIX_EPOCH + Duration::new(seconds, 5));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000005Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59.000000005Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000005Z");
        assert_eq!(at(1_709_251_200), "2024-03-01T00:00:00.000000005Z");
        assert_eq!(at(4_102_444_799), "2099-12-31T23:59:59.000000005Z");
    }
}
