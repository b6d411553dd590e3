//! Network namespaces as files.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use crate::error::errno;
use crate::netlink::{NetlinkError, Socket, route};

/// Why a network namespace could not be pinned, unpinned, made or read.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// A file operation failed.
    #[error("{action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// A system call failed.
    #[error("{action} network namespace {path}")]
    Call {
        /// What was tried.
        action: &'static str,
        /// The namespace's file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: Errno,
    },
    /// The helper thread failed.
    #[error("make network namespace {path}: its thread died")]
    Thread {
        /// The namespace's file.
        path: PathBuf,
    },
    /// Its loopback interface can't be brought up.
    #[error("bring up the loopback interface of network namespace {path}")]
    Netlink {
        /// The namespace's file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: NetlinkError,
    },
}

/// Keeps the network namespace behind `fd` alive at `path` by a bind mount. The file is made; one
/// that is there already must not be a mount.
pub fn pin(fd: BorrowedFd<'_>, path: &Path) -> Result<(), NetnsError> {
    let file = |action| {
        move |source| NetnsError::File {
            action,
            path: path.to_owned(),
            source,
        }
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(file("make the folder of"))?;
    }
    joey_failpoint::hit("netns.create").map_err(file("create"))?;
    File::create(path).map_err(file("create"))?;
    let source = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let point = joey_failpoint::hit("netns.mount").map_err(errno);
    if let Err(source) = point.and_then(|()| rustix::mount::mount_bind(source.as_str(), path)) {
        drop(fs::remove_file(path));
        return Err(NetnsError::Call {
            action: "pin",
            path: path.to_owned(),
            source,
        });
    }
    // A shared mount would be copied into every mount namespace and stay pinned there.
    if let Err(source) = rustix::mount::mount_change(path, MountPropagationFlags::PRIVATE) {
        tracing::debug!(path = %path.display(), %source, "pinned namespace stays shared");
    }
    Ok(())
}

/// Lets a pinned network namespace go. Missing is success; what is not mounted is only removed.
pub fn unpin(path: &Path) -> Result<(), NetnsError> {
    loop {
        let point = joey_failpoint::hit("netns.unmount").map_err(errno);
        match point.and_then(|()| {
            rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        }) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => break,
            Err(source) => {
                return Err(NetnsError::Call {
                    action: "unpin",
                    path: path.to_owned(),
                    source,
                });
            }
        }
    }
    match joey_failpoint::hit("netns.remove").and_then(|()| fs::remove_file(path)) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(NetnsError::File {
            action: "remove",
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Makes a network namespace, its loopback interface up, and pins it at `path`.
pub fn make(path: &Path) -> Result<(), NetnsError> {
    let call = |action| {
        move |source| NetnsError::Call {
            action,
            path: path.to_owned(),
            source,
        }
    };
    let inside = || {
        // SAFETY: only the network namespace is unshared; descriptors stay shared.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.map_err(call("make"))?;
        let namespace =
            File::open("/proc/thread-self/ns/net").map_err(|source| NetnsError::File {
                action: "open the new namespace for",
                path: path.to_owned(),
                source,
            })?;
        loopback_up(path)?;
        pin(namespace.as_fd(), path)
    };
    // The thread ends in the new namespace and is never used for anything else.
    std::thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|_| {
        Err(NetnsError::Thread {
            path: path.to_owned(),
        })
    })
}

fn loopback_up(path: &Path) -> Result<(), NetnsError> {
    let up = || {
        let mut batch = crate::netlink::Batch::new();
        route::set_up(&mut batch, route::LOOPBACK);
        Socket::route()?.transact(batch)?.check(|_, _| false)
    };
    match up() {
        Ok(_) => Ok(()),
        Err(source) => Err(NetnsError::Netlink {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Counters of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InterfaceStats {
    /// Its name.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets not received because of errors.
    pub rx_errors: u64,
    /// Packets received and dropped.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets not sent because of errors.
    pub tx_errors: u64,
    /// Packets dropped before they were sent.
    pub tx_dropped: u64,
}

impl InterfaceStats {
    /// Reads a line of `/proc/net/dev`: the name, eight numbers received, eight sent.
    fn parse(line: &str) -> Option<Self> {
        let (name, numbers) = line.rsplit_once(':')?;
        let numbers: Vec<u64> = numbers
            .split_ascii_whitespace()
            .map_while(|number| number.parse().ok())
            .collect();
        let at = |index: usize| numbers.get(index).copied();
        Some(Self {
            name: name.trim().to_owned(),
            rx_bytes: at(0)?,
            rx_packets: at(1)?,
            rx_errors: at(2)?,
            rx_dropped: at(3)?,
            tx_bytes: at(8)?,
            tx_packets: at(9)?,
            tx_errors: at(10)?,
            tx_dropped: at(11)?,
        })
    }
}

/// Counters of all interfaces but loopback in the namespace at `path`. Takes some ten
/// microseconds, in which the calling thread visits the namespace. The file in `/proc` needs no
/// lock of the kernel that interfaces being made or removed hold; netlink does.
pub fn interface_stats(path: &Path) -> Result<Vec<InterfaceStats>, NetnsError> {
    let kind = Some(LinkNameSpaceType::Network);
    let call = |action| {
        move |source| NetnsError::Call {
            action,
            path: path.to_owned(),
            source,
        }
    };
    let open = |file: &Path| {
        File::open(file).map_err(|source| NetnsError::File {
            action: "open",
            path: file.to_owned(),
            source,
        })
    };
    let target = open(path)?;
    let home = open(Path::new("/proc/thread-self/ns/net"))?;
    move_into_link_name_space(target.as_fd(), kind).map_err(call("enter"))?;
    let counters = File::open("/proc/thread-self/net/dev");
    // A thread left in the wrong namespace would do others' work there: better no daemon than
    // that. It can't fail but for a lack of rights that entering has just shown to be there.
    if let Err(source) = move_into_link_name_space(home.as_fd(), kind) {
        tracing::error!(%source, "can't return to the host's network namespace");
        std::process::abort();
    }
    let mut text = String::new();
    counters
        .and_then(|mut file| file.read_to_string(&mut text))
        .map_err(|source| NetnsError::File {
            action: "read the interfaces of",
            path: path.to_owned(),
            source,
        })?;
    let all = text.lines().filter_map(InterfaceStats::parse);
    Ok(all.filter(|counters| counters.name != "lo").collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_from_procs_lines() {
        let line = "  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0";
        let expected = InterfaceStats {
            name: "eth0".to_owned(),
            rx_bytes: 1,
            rx_packets: 2,
            rx_errors: 3,
            rx_dropped: 4,
            tx_bytes: 5,
            tx_packets: 6,
            tx_errors: 7,
            tx_dropped: 8,
        };
        assert_eq!(InterfaceStats::parse(line), Some(expected));
        assert_eq!(InterfaceStats::parse("Inter-|   Receive"), None);
        assert_eq!(InterfaceStats::parse("eth0: 1 2"), None);
    }
}
