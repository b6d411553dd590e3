//! Pipes and terminals as asynchronous ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe::{Receiver, Sender};

fn nonblocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    let flags = fcntl_getfl(&fd)?;
    if !flags.contains(OFlags::NONBLOCK) {
        fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    }
    Ok(fd)
}

/// The reading end of a pipe, or a terminal's master.
#[derive(Debug)]
pub struct PipeReader {
    // Tokio's type checks for nothing a terminal's master would lack.
    receiver: Receiver,
}

impl PipeReader {
    /// Takes over a descriptor of a pipe, socket or terminal master. It becomes non-blocking,
    /// also for whoever shares its open file description.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the descriptor can't be waited on, as those of regular files.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            receiver: Receiver::from_owned_fd_unchecked(nonblocking(fd)?)?,
        })
    }

    /// Reads what is there, without waiting; `None` when nothing is there yet.
    ///
    /// # Errors
    /// When reading fails.
    pub fn read_available(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match rustix::io::read(self, &mut *buffer) {
                Ok(count) => return Ok(Some(count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::IO) => return Ok(Some(0)),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for PipeReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

impl AsyncRead for PipeReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.receiver).poll_read(context, buffer));
        Poll::Ready(match result {
            // How a terminal's master says that nobody has the other end open.
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => Ok(()),
            result => result,
        })
    }
}

/// The writing end of a pipe, or a terminal's master. Shutting it down closes the descriptor:
/// the reader of a pipe then sees its end; a terminal stays as it is.
#[derive(Debug)]
pub struct PipeWriter {
    sender: Option<Sender>,
}

impl PipeWriter {
    /// Takes over a descriptor of a pipe, socket or terminal master. It becomes non-blocking,
    /// also for whoever shares its open file description.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the descriptor can't be waited on, as those of regular files.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            sender: Some(Sender::from_owned_fd_unchecked(nonblocking(fd)?)?),
        })
    }
}

impl AsyncWrite for PipeWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.sender {
            Some(sender) => Pin::new(sender).poll_write(context, buffer),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sender = None;
        Poll::Ready(Ok(()))
    }
}
