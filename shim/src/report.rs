//! What a forked worker, and the container's process until it execs, tell the shim.
//!
//! A SEQPACKET pair: every message is whole, several writers may hold the end, and the end of file
//! says that all of them are done.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    sockopt::set_socket_passcred,
};
use serde::{Deserialize, Serialize};

use crate::error::{Failure, Result, Step};

const MAX_REPORT: usize = 16 << 10;

/// One message of a worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// The pid, on the host, of the process that was made.
    Pid(i32),
    /// The user the process runs as, just before it execs.
    User {
        /// Who says so, on the host: the kernel's word, which nobody can send.
        #[serde(skip)]
        pid: i32,
        uid: u32,
        gid: u32,
        groups: Vec<u32>,
    },
    /// Descriptors: namespaces, in the order asked for, or a pty's master.
    Fds,
    /// A line for the daemon's log: something asked for could only be done in part.
    Note(String),
    /// The work failed.
    Failed(Failure),
}

/// The writers' end.
#[derive(Debug)]
pub struct Reporter(OwnedFd);

/// The shim's end.
#[derive(Debug)]
pub struct Reports(OwnedFd);

/// Makes a connected pair.
pub fn pair() -> Result<(Reporter, Reports)> {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .step("make the worker's socket")?;
    set_socket_passcred(&ours, true).step("make the worker's socket")?;
    Ok((Reporter(theirs), Reports(ours)))
}

impl Reporter {
    /// The descriptor, to keep it open in a worker.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Sends a message; nobody is there to hear of a failure.
    pub fn send(&self, report: &Report) {
        drop(self.send_fds(report, &[]));
    }

    /// Sends a message with descriptors.
    pub fn send_fds(&self, report: &Report, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let mut bytes = serde_json::to_vec(report).map_err(|e| Failure::from_chain(&e))?;
        if bytes.len() > MAX_REPORT {
            bytes = b"{\"Note\":\"a report was too long\"}".to_vec();
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        sendmsg(
            &self.0,
            &[IoSlice::new(&bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
        .step("report to the shim")?;
        Ok(())
    }
}

impl Reports {
    /// The descriptor, to poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The next message; `None` when nothing is there yet, `Some(None)` at the end.
    pub fn next(&self, wait: bool) -> Option<Option<(Report, Vec<OwnedFd>)>> {
        let mut buffer = vec![0; MAX_REPORT];
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8), ScmCredentials(1))];
        let flags = RecvFlags::CMSG_CLOEXEC
            | if wait {
                RecvFlags::empty()
            } else {
                RecvFlags::DONTWAIT
            };
        loop {
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let got = recvmsg(
                &self.0,
                &mut [IoSliceMut::new(&mut buffer)],
                &mut control,
                flags,
            );
            let got = match got {
                Ok(got) if got.bytes > 0 => got.bytes,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return None,
                Ok(_) | Err(_) => return Some(None),
            };
            let (mut fds, mut sender) = (Vec::new(), 0);
            for message in control.drain() {
                match message {
                    RecvAncillaryMessage::ScmRights(rights) => fds.extend(rights),
                    RecvAncillaryMessage::ScmCredentials(credentials) => {
                        sender = credentials.pid.as_raw_nonzero().get();
                    }
                    _ => {}
                }
            }
            let mut report = serde_json::from_slice(&buffer[..got]).unwrap_or_else(|error| {
                Report::Failed(Failure::new(format!("garbled report of a worker: {error}")))
            });
            if let Report::User { pid, .. } = &mut report {
                *pid = sender;
            }
            return Some(Some((report, fds)));
        }
    }

    /// Ends a blocking read after `seconds` without a message.
    pub fn set_timeout(&self, seconds: u64) -> Result<()> {
        let timeout = Some(std::time::Duration::from_secs(seconds));
        rustix::net::sockopt::set_socket_timeout(
            &self.0,
            rustix::net::sockopt::Timeout::Recv,
            timeout,
        )
        .step("bound the wait for a worker")
    }
}
