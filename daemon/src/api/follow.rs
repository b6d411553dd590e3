//! Reads a log's entries across its files and waits for more.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::MAX_LOG_FILES;
use super::fd::AsyncPipe;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// The longest entry; a longer one is no log line of ours.
const MAX_ENTRY: usize = 1 << 20;

/// A container's log that may not be there yet: its present file, and before that those that
/// rotation has numbered, `.1` being the newest of them.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    reading: Option<LogFile>,
    /// What comes after it, the oldest first.
    newer: VecDeque<LogFile>,
    /// What is read and not taken, from `taken` on.
    buffer: Vec<u8>,
    taken: usize,
    searched: usize,
}

/// An open file, told apart from others for as long as it is open.
#[derive(Debug)]
struct LogFile {
    file: File,
    id: (u64, u64),
}

impl Log {
    /// Nothing is opened yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            reading: None,
            newer: VecDeque::new(),
            buffer: Vec::new(),
            taken: 0,
            searched: 0,
        }
    }

    /// The next entry without its newline; None at the present end.
    pub async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(length) = self.buffer[self.searched..]
                .iter()
                .position(|byte| *byte == b'\n')
            {
                let end = self.searched + length;
                let entry = self.buffer[self.taken..end].to_vec();
                self.taken = end + 1;
                self.searched = self.taken;
                return Ok(Some(entry));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() - self.taken > MAX_ENTRY {
                self.taken = self.buffer.len();
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// Reads on; false at the present end.
    async fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.taken);
        self.searched -= self.taken;
        self.taken = 0;
        loop {
            if self.read().await? {
                return Ok(true);
            }
            if self.newer.is_empty() {
                let last = self.reading.as_ref().map(|reading| reading.id);
                let newer = newer_files(&self.path, last).await?;
                if newer.is_empty() {
                    return Ok(false);
                }
                self.newer = newer.into();
                // Its last entries came before it was renamed, and maybe after it was read.
                if self.read().await? {
                    return Ok(true);
                }
            }
            self.reading = self.newer.pop_front();
            // An entry that was cut off has no end in another file.
            self.buffer.clear();
            self.searched = 0;
        }
    }

    async fn read(&mut self) -> io::Result<bool> {
        let Some(reading) = &mut self.reading else {
            return Ok(false);
        };
        let mut chunk = (&mut reading.file).take(CHUNK as u64);
        Ok(chunk.read_to_end(&mut self.buffer).await? > 0)
    }
}

/// The files of a log that are newer than the one with the id, or all, the oldest first.
async fn newer_files(path: &Path, than: Option<(u64, u64)>) -> io::Result<Vec<LogFile>> {
    let path = path.to_owned();
    let open = move || {
        let mut files: Vec<LogFile> = Vec::new();
        let mut missing = 0;
        // From the newest on: a file that is renamed meanwhile is met twice, none is passed over.
        for number in 0..=MAX_LOG_FILES {
            let file = match std::fs::File::open(numbered(&path, number)) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    missing += 1;
                    // A rotation that is under way leaves one gap.
                    if missing > 1 {
                        break;
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            let metadata = file.metadata()?;
            let id = (metadata.dev(), metadata.ino());
            if Some(id) == than {
                break;
            }
            if files.iter().all(|other| other.id != id) {
                let file = File::from_std(file);
                files.push(LogFile { file, id });
            }
        }
        files.reverse();
        Ok(files)
    };
    tokio::task::spawn_blocking(open)
        .await
        .map_err(io::Error::other)?
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    if number > 0 {
        name.push(format!(".{number}"));
    }
    name.into()
}

/// Tells when something in a folder was written.
#[derive(Debug)]
pub struct Changes(AsyncPipe);

impl Changes {
    /// Watches from now on.
    pub fn of(folder: &Path) -> io::Result<Self> {
        let descriptor: OwnedFd = inotify::init(inotify::CreateFlags::CLOEXEC)?;
        let events = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE;
        inotify::add_watch(&descriptor, folder, events)?;
        Ok(Self(AsyncPipe::new(descriptor)?))
    }

    /// Waits for a change; changes since the last call count.
    pub async fn next(&self) -> io::Result<()> {
        let mut events = [0; 4096];
        self.0.read(&mut events).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn entries_come_as_they_are_written() {
        let folder = std::env::temp_dir().join(format!("joeyd-follow-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("log");
        let changes = Changes::of(&folder).unwrap();
        let mut log = Log::new(&path);
        assert_eq!(log.next().await.unwrap(), None);

        let mut file = std::fs::File::create(&path).unwrap();
        changes.next().await.unwrap();
        file.write_all(b"one\ntw").unwrap();
        changes.next().await.unwrap();
        assert_eq!(log.next().await.unwrap().as_deref(), Some(&b"one"[..]));
        assert_eq!(log.next().await.unwrap(), None);
        file.write_all(b"o\nthree\n").unwrap();
        changes.next().await.unwrap();
        assert_eq!(log.next().await.unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(log.next().await.unwrap().as_deref(), Some(&b"three"[..]));
        assert_eq!(log.next().await.unwrap(), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn entries_come_across_rotations_once_and_in_order() {
        let folder = std::env::temp_dir().join(format!("joeyd-rotated-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("log");
        let rotate = || {
            for number in (0..3).rev() {
                drop(std::fs::rename(
                    numbered(&path, number),
                    numbered(&path, number + 1),
                ));
            }
        };
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write("one\n");
        rotate();
        write("two\ncut o");
        rotate();
        write("three\n");
        let mut log = Log::new(&path);
        for expected in ["one", "two", "three"] {
            let entry = log.next().await.unwrap();
            assert_eq!(entry.as_deref(), Some(expected.as_bytes()));
        }
        assert_eq!(log.next().await.unwrap(), None);
        // Written after it was read and before it was renamed.
        let mut file = std::fs::File::options().append(true).open(&path).unwrap();
        file.write_all(b"four\n").unwrap();
        rotate();
        write("five\n");
        rotate();
        for expected in ["four", "five"] {
            let entry = log.next().await.unwrap();
            assert_eq!(entry.as_deref(), Some(expected.as_bytes()));
        }
        assert_eq!(log.next().await.unwrap(), None);
        write("six\n");
        assert_eq!(log.next().await.unwrap().as_deref(), Some(&b"six"[..]));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
