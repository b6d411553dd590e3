//! Standard input, output and error, also where whoever made them set them not to block.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::{mpsc, oneshot};

use crate::error::CliError;

/// Chunks that wait for the reader of joey's output.
const DEPTH: usize = 16;

/// Where joey writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Waits for input and reads what is there; 0 at its end.
pub fn read(buffer: &mut [u8]) -> io::Result<usize> {
    let stdin = io::stdin();
    loop {
        match rustix::io::read(&stdin, &mut *buffer) {
            Err(Errno::AGAIN) => wait(stdin.as_fd(), PollFlags::IN)?,
            Err(Errno::INTR) => {}
            read => return Ok(read?),
        }
    }
}

/// Writes everything, at once: nothing is kept in a buffer.
pub fn write(target: Target, bytes: &[u8]) -> io::Result<()> {
    match target {
        Target::Out => write_to(io::stdout().as_fd(), bytes),
        Target::Err => write_to(io::stderr().as_fd(), bytes),
    }
}

fn write_to(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::AGAIN) => wait(fd, PollFlags::OUT)?,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn wait(fd: BorrowedFd<'_>, flags: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::from_borrowed_fd(fd, flags)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Tells the user a line; one who does not listen is no error.
pub fn tell(line: &str) {
    write(Target::Err, format!("{line}\n").as_bytes()).unwrap_or_default();
}

/// Writes in a thread of its own: a reader that does not read holds up nothing else.
#[derive(Debug)]
pub struct Writer {
    queue: mpsc::Sender<(Target, Vec<u8>)>,
    ended: oneshot::Receiver<io::Result<()>>,
}

/// Room for one chunk.
pub type Place<'a> = mpsc::Permit<'a, (Target, Vec<u8>)>;

impl Writer {
    /// Starts the thread.
    pub fn start() -> Result<Self, CliError> {
        let (queue, mut queued) = mpsc::channel::<(Target, Vec<u8>)>(DEPTH);
        let (end, ended) = oneshot::channel();
        let mut write_all = move || {
            while let Some((target, bytes)) = queued.blocking_recv() {
                write(target, &bytes)?;
            }
            Ok(())
        };
        std::thread::Builder::new()
            .name("output".into())
            // Nobody may be left to be told.
            .spawn(move || end.send(write_all()).unwrap_or_default())
            .map_err(|error| CliError::Io("write the output", error))?;
        Ok(Self { queue, ended })
    }

    /// Waits for room; None once nothing can be written any more. Safe to cancel.
    pub async fn place(&self) -> Option<Place<'_>> {
        self.queue.reserve().await.ok()
    }

    /// Waits until everything is written; false where nobody reads it any more.
    pub async fn finish(self) -> Result<bool, CliError> {
        drop(self.queue);
        match self.ended.await {
            Ok(Err(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Ok(Err(error)) => Err(CliError::Io("write the output", error)),
            Ok(Ok(())) => Ok(true),
            Err(_) => Err(CliError::Io("write the output", ErrorKind::Other.into())),
        }
    }
}
