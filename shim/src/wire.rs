//! One client's connection: length-prefixed protobuf frames with descriptors.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use joey_proto::shim::{Reply, Request};
use prost::Message;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// The largest frame taken from a client, bytes.
const MAX_FRAME: usize = 8 << 20;
/// What a client that does not read may leave queued before it is dropped, bytes.
const MAX_QUEUED: usize = 4 << 20;
/// Descriptors that may wait for their frame.
const MAX_FDS: usize = 32;
const READ_SIZE: usize = 16 << 10;

/// The connection is of no further use.
#[derive(Debug)]
pub struct Gone;

#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    fds: Vec<OwnedFd>,
}

/// A client.
#[derive(Debug)]
pub struct Conn {
    socket: OwnedFd,
    incoming: Vec<u8>,
    fds: VecDeque<OwnedFd>,
    outgoing: VecDeque<Outgoing>,
    queued: usize,
}

impl Conn {
    /// Takes a connected non-blocking stream socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            incoming: Vec::new(),
            fds: VecDeque::new(),
            outgoing: VecDeque::new(),
            queued: 0,
        }
    }

    /// The socket, to poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Replies wait for the socket to become writable.
    pub fn wants_write(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Reads what is there; false when the peer has closed.
    pub fn read(&mut self) -> Result<(), Gone> {
        let mut chunk = [0; READ_SIZE];
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut iov = [IoSliceMut::new(&mut chunk)];
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let got = match recvmsg(&self.socket, &mut iov, &mut control, flags) {
                Ok(got) => got.bytes,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(_) => return Err(Gone),
            };
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    self.fds.extend(fds);
                }
            }
            if got == 0 || self.fds.len() > MAX_FDS {
                return Err(Gone);
            }
            self.incoming.extend_from_slice(&chunk[..got]);
            if got < READ_SIZE || self.incoming.len() > MAX_FRAME {
                return Ok(());
            }
        }
    }

    /// The next whole request.
    pub fn next(&mut self) -> Result<Option<Request>, Gone> {
        let Some((head, rest)) = self.incoming.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let len = usize::try_from(u32::from_be_bytes(*head)).map_err(|_| Gone)?;
        if len > MAX_FRAME {
            return Err(Gone);
        }
        if rest.len() < len {
            return Ok(None);
        }
        let request = Request::decode(&rest[..len]).map_err(|_| Gone)?;
        self.incoming.drain(..4 + len);
        if self.incoming.is_empty() {
            self.incoming = Vec::new();
        }
        Ok(Some(request))
    }

    /// The oldest descriptor that came with the requests.
    pub fn take_fd(&mut self) -> Option<OwnedFd> {
        self.fds.pop_front()
    }

    /// Queues a reply and sends what the socket takes.
    pub fn send(&mut self, reply: &Reply, fds: Vec<OwnedFd>) -> Result<(), Gone> {
        let len = reply.encoded_len();
        let mut bytes = Vec::with_capacity(4 + len);
        bytes.extend_from_slice(&u32::try_from(len).map_err(|_| Gone)?.to_be_bytes());
        bytes.extend_from_slice(&reply.encode_to_vec());
        self.queued += bytes.len();
        if self.queued > MAX_QUEUED {
            return Err(Gone);
        }
        self.outgoing.push_back(Outgoing {
            bytes,
            sent: 0,
            fds,
        });
        self.flush()
    }

    /// Sends what the socket takes.
    pub fn flush(&mut self) -> Result<(), Gone> {
        while let Some(front) = self.outgoing.front_mut() {
            let fds: Vec<BorrowedFd<'_>> = front.fds.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
                return Err(Gone);
            }
            let iov = [IoSlice::new(&front.bytes[front.sent..])];
            match sendmsg(
                &self.socket,
                &iov,
                &mut control,
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Ok(sent) => {
                    front.fds.clear();
                    front.sent += sent;
                    self.queued -= sent;
                    if front.sent == front.bytes.len() {
                        self.outgoing.pop_front();
                    }
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(_) => return Err(Gone),
            }
        }
        Ok(())
    }
}
