//! Frames: a 4-byte big-endian length, a protobuf message, descriptors with the first byte.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use joey_proto::shim::{Reply, Request};
use prost::Message;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// The largest reply taken, bytes.
const MAX_FRAME: usize = 8 << 20;
/// Descriptors that may wait for their frame.
const MAX_FDS: usize = 64;

/// Reads replies from a shim.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Reader {
    /// The next reply; None at the end of the stream.
    pub(crate) async fn next(&mut self, socket: &UnixStream) -> std::io::Result<Option<Reply>> {
        loop {
            if let Some(reply) = self.take()? {
                return Ok(Some(reply));
            }
            socket.readable().await?;
            match socket.try_io(Interest::READABLE, || self.read(socket)) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The oldest descriptor that came with the replies.
    pub(crate) fn take_fd(&mut self) -> Option<OwnedFd> {
        self.fds.pop_front()
    }

    fn read(&mut self, socket: &UnixStream) -> std::io::Result<usize> {
        let mut chunk = [0; 16 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let read = recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut chunk)],
            &mut control,
            flags,
        )?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        if self.fds.len() > MAX_FDS {
            return Err(invalid("too many descriptors"));
        }
        self.bytes.extend_from_slice(&chunk[..read.bytes]);
        Ok(read.bytes)
    }

    fn take(&mut self) -> std::io::Result<Option<Reply>> {
        let Some((head, rest)) = self.bytes.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        if length > MAX_FRAME {
            return Err(invalid("a frame that is too large"));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let reply = Reply::decode(&rest[..length])?;
        self.bytes.drain(..4 + length);
        Ok(Some(reply))
    }
}

/// Sends a request with its descriptors. One caller at a time.
pub(crate) async fn send(
    socket: &UnixStream,
    request: &Request,
    fds: &[OwnedFd],
) -> std::io::Result<()> {
    let length = request.encoded_len();
    let head = u32::try_from(length).map_err(|_| invalid("a request that is too large"))?;
    let mut bytes = Vec::with_capacity(4 + length);
    bytes.extend_from_slice(&head.to_be_bytes());
    bytes.extend_from_slice(&request.encode_to_vec());
    let mut sent = 0;
    while sent < bytes.len() {
        socket.writable().await?;
        let rights: Vec<BorrowedFd<'_>> = if sent == 0 {
            fds.iter().map(AsFd::as_fd).collect()
        } else {
            Vec::new()
        };
        match socket.try_io(Interest::WRITABLE, || {
            send_part(socket, &bytes[sent..], &rights)
        }) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn send_part(socket: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> std::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(invalid("too many descriptors"));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        flags,
    )?)
}

fn invalid(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what)
}
