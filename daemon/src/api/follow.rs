//! Reads a log file's entries and waits for more.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::inotify;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::fd::AsyncPipe;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// The longest entry; a longer one is no log line of ours.
const MAX_ENTRY: usize = 1 << 20;

/// A log file that may not be there yet.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: Option<File>,
    /// What is read and not taken, from `taken` on.
    buffer: Vec<u8>,
    taken: usize,
    searched: usize,
}

impl LogFile {
    /// Nothing is opened yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            file: None,
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

    async fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.taken);
        self.searched -= self.taken;
        self.taken = 0;
        let file = match &mut self.file {
            Some(file) => file,
            None => match File::open(&self.path).await {
                Ok(file) => self.file.insert(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error),
            },
        };
        let mut chunk = file.take(CHUNK as u64);
        Ok(chunk.read_to_end(&mut self.buffer).await? > 0)
    }
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
        let mut log = LogFile::new(&path);
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
}
