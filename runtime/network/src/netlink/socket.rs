//! A netlink socket of one network namespace: the one its thread was in when it was made.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    self, AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt,
};

use super::message::{self, Attrs, Batch, Received};
use crate::error::errno;

const KIND_ERROR: u16 = 2;
const KIND_DONE: u16 = 3;
const FLAG_MULTI: u16 = 2;
const FLAG_CAPPED: u16 = 0x100;
const FLAG_ACK_TLVS: u16 = 0x200;
const ATTR_MESSAGE: u16 = 1;
const RECEIVE_BUFFER: usize = 64 * 1024;
const SOCKET_BUFFER: usize = 8 * 1024 * 1024;

/// A refusal by the kernel.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket itself failed.
    #[error("netlink {action}")]
    Socket {
        /// What was tried.
        action: &'static str,
        /// The reason.
        #[source]
        source: Errno,
    },
    /// One message of a batch was refused.
    #[error("the kernel refused netlink message {kind:#x}{}", if text.is_empty() { String::new() } else { format!(" ({text})") })]
    Refused {
        /// Position in the batch.
        index: usize,
        /// Type of the message.
        kind: u16,
        /// The kernel's own explanation; may be empty.
        text: String,
        /// The reason.
        #[source]
        source: Errno,
    },
    /// The kernel answered less than it must.
    #[error("netlink answered {got} of {want} messages")]
    Incomplete {
        /// Acknowledgements received.
        got: usize,
        /// Acknowledgements asked for.
        want: usize,
    },
}

impl NetlinkError {
    /// The kernel's error number.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Socket { source, .. } | Self::Refused { source, .. } => Some(*source),
            Self::Incomplete { .. } => None,
        }
    }
}

/// What a batch brought.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// Refusals, by position in the batch.
    pub(crate) refusals: Vec<NetlinkError>,
    /// Data, with the position of the request in the batch and the kind of the answer.
    pub(crate) replies: Vec<(usize, u16, Vec<u8>)>,
}

impl Answers {
    /// Ok unless a message was refused otherwise than `tolerate` allows (position, reason).
    pub(crate) fn check(
        mut self,
        tolerate: impl Fn(usize, Errno) -> bool,
    ) -> Result<Self, NetlinkError> {
        let bad = self.refusals.iter().position(|refusal| match refusal {
            NetlinkError::Refused { index, source, .. } => !tolerate(*index, *source),
            _ => true,
        });
        match bad {
            Some(at) => Err(self.refusals.swap_remove(at)),
            None => Ok(self),
        }
    }

    /// Data answered to the request at `index`.
    pub(crate) fn reply(&self, index: usize) -> Option<&[u8]> {
        self.replies
            .iter()
            .find(|(at, _, _)| *at == index)
            .map(|(_, _, data)| data.as_slice())
    }
}

/// A netlink socket.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// A socket of the calling thread's network namespace.
    pub(crate) fn route() -> Result<Self, NetlinkError> {
        Self::open(None, 0, SocketFlags::CLOEXEC)
    }

    /// The same for netfilter.
    pub(crate) fn netfilter() -> Result<Self, NetlinkError> {
        let socket = Self::open(Some(net::netlink::NETFILTER), 0, SocketFlags::CLOEXEC)?;
        socket.enlarge();
        Ok(socket)
    }

    /// A netfilter socket that hears the given multicast groups (a bit mask) and never blocks.
    pub(crate) fn netfilter_monitor(groups: u32) -> Result<Self, NetlinkError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = Self::open(Some(net::netlink::NETFILTER), groups, flags)?;
        socket.enlarge();
        Ok(socket)
    }

    fn open(
        protocol: Option<Protocol>,
        groups: u32,
        flags: SocketFlags,
    ) -> Result<Self, NetlinkError> {
        let failed = |action| move |source| NetlinkError::Socket { action, source };
        let fd = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)
            .map_err(failed("socket"))?;
        net::bind(&fd, &SocketAddrNetlink::new(0, groups)).map_err(failed("bind"))?;
        let name = net::getsockname(&fd).map_err(failed("getsockname"))?;
        let port = SocketAddrNetlink::try_from(name)
            .map_err(failed("getsockname"))?
            .pid();
        // Explanations and short acknowledgements are comforts: their absence is no failure.
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            if let Err(source) = enable(fd.as_fd(), option) {
                tracing::debug!(option, %source, "netlink option refused");
            }
        }
        Ok(Self {
            fd,
            port,
            sequence: 1,
            buffer: vec![0; RECEIVE_BUFFER],
        })
    }

    /// The rules of all pods are one batch, and others' changes come in bursts.
    fn enlarge(&self) {
        let sized = sockopt::set_socket_recv_buffer_size_force(&self.fd, SOCKET_BUFFER)
            .and_then(|()| sockopt::set_socket_send_buffer_size_force(&self.fd, SOCKET_BUFFER));
        if let Err(source) = sized {
            tracing::debug!(%source, "netlink socket keeps its default buffers");
        }
    }

    /// The socket's own netlink port, which notifications of its changes carry.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// Sends a batch and reads all answers that do not come from dumps.
    pub(crate) fn transact(&mut self, mut batch: Batch) -> Result<Answers, NetlinkError> {
        let mut answers = Answers::default();
        if batch.is_empty() {
            return Ok(answers);
        }
        let first = self.send(&mut batch)?;
        let want = batch.acks();
        let mut got = 0;
        loop {
            let length = match net::recv(&self.fd, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => length,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(source) => {
                    return Err(NetlinkError::Socket {
                        action: "receive",
                        source,
                    });
                }
            };
            let bytes = self.buffer.get(..length).unwrap_or(&[]);
            for received in message::split(bytes) {
                let index = received.sequence.wrapping_sub(first) as usize;
                if index >= batch.len() {
                    continue;
                }
                if received.kind != KIND_ERROR {
                    let reply = (index, received.kind, received.payload.to_vec());
                    answers.replies.push(reply);
                    continue;
                }
                got += 1;
                if let Some((source, text)) = refusal(received) {
                    let kind = batch.kind(index);
                    answers.refusals.push(NetlinkError::Refused {
                        index,
                        kind,
                        text,
                        source,
                    });
                }
            }
            if want > 0 && got >= want {
                break;
            }
        }
        if got < want && answers.refusals.is_empty() {
            return Err(NetlinkError::Incomplete { got, want });
        }
        Ok(answers)
    }

    /// Sends one dump request and gives every answer to `each`.
    pub(crate) fn dump(
        &mut self,
        mut batch: Batch,
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<(), NetlinkError> {
        let first = self.send(&mut batch)?;
        loop {
            let length = match net::recv(&self.fd, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => length,
                Err(Errno::INTR) => continue,
                Err(source) => {
                    return Err(NetlinkError::Socket {
                        action: "receive",
                        source,
                    });
                }
            };
            let bytes = self.buffer.get(..length).unwrap_or(&[]);
            for received in message::split(bytes).filter(|m| m.sequence == first) {
                match received.kind {
                    KIND_DONE => return Ok(()),
                    KIND_ERROR => {
                        return match refusal(received) {
                            None => Ok(()),
                            Some((source, text)) => {
                                let kind = batch.kind(0);
                                Err(NetlinkError::Refused {
                                    index: 0,
                                    kind,
                                    text,
                                    source,
                                })
                            }
                        };
                    }
                    kind => each(kind, received.payload),
                }
                if received.flags & FLAG_MULTI == 0 {
                    return Ok(());
                }
            }
        }
    }

    /// Reads what a monitor heard; None when there is nothing more for now.
    pub(crate) fn heard(
        &mut self,
        mut each: impl FnMut(u16, u32, &[u8]),
    ) -> Result<Option<()>, NetlinkError> {
        match net::recv(&self.fd, &mut self.buffer[..], RecvFlags::DONTWAIT) {
            Ok((length, _)) => {
                let bytes = self.buffer.get(..length).unwrap_or(&[]);
                for received in message::split(bytes) {
                    each(received.kind, received.port, received.payload);
                }
                Ok(Some(()))
            }
            Err(Errno::AGAIN) => Ok(None),
            Err(Errno::INTR) => Ok(Some(())),
            Err(source) => Err(NetlinkError::Socket {
                action: "receive",
                source,
            }),
        }
    }

    fn send(&mut self, batch: &mut Batch) -> Result<u32, NetlinkError> {
        let first = self.sequence;
        let count = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        self.sequence = self.sequence.wrapping_add(count);
        let bytes = batch.finish(first);
        joey_failpoint::hit("netlink.request").map_err(|error| NetlinkError::Socket {
            action: "send",
            source: errno(error),
        })?;
        loop {
            match net::send(&self.fd, bytes, SendFlags::empty()) {
                Ok(_) => return Ok(first),
                Err(Errno::INTR) => {}
                Err(source) => {
                    return Err(NetlinkError::Socket {
                        action: "send",
                        source,
                    });
                }
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}

/// Reads an error message: None for an acknowledgement.
fn refusal(received: Received<'_>) -> Option<(Errno, String)> {
    let code = message::read_u32(received.payload, 0)?.cast_signed();
    if code == 0 {
        return None;
    }
    let mut text = String::new();
    if received.flags & FLAG_ACK_TLVS != 0 {
        let echoed = if received.flags & FLAG_CAPPED != 0 {
            16
        } else {
            message::read_u32(received.payload, 4)? as usize
        };
        let attrs = received.payload.get(4 + echoed.next_multiple_of(4)..);
        if let Some(found) = attrs.and_then(|bytes| Attrs::new(bytes).text(ATTR_MESSAGE)) {
            found.clone_into(&mut text);
        }
    }
    Some((Errno::from_raw_os_error(-code), text))
}

fn enable(fd: BorrowedFd<'_>, option: libc::c_int) -> std::io::Result<()> {
    let on: libc::c_int = 1;
    #[allow(clippy::cast_possible_truncation, reason = "the size of an int")]
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the pointer and size describe one live int, which the
    // kernel only reads during the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}
