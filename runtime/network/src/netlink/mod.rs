//! Netlink: building messages, sending batches, reading answers.
//!
//! The kernel handles a batch inside `sendmsg`, so all its answers lie in the socket when the call
//! returns; only dumps go on while they are read.

pub(crate) mod conntrack;
mod message;
pub(crate) mod nft;
pub(crate) mod route;
mod socket;

pub(crate) use message::{Attrs, Batch};
pub(crate) use socket::{NetlinkError, Socket};
