//! Turning a layer's tar into a directory for overlayfs.
//!
//! A layer is hostile until proven otherwise. Every entry is created relative to the descriptor of
//! its parent folder, and that descriptor comes from `openat2` with `RESOLVE_IN_ROOT`: neither
//! `..`, nor an absolute name, nor a symbolic link planted by an earlier entry leads out of the
//! layer. Sizes, counts and lengths have bounds.
//!
//! Whiteouts (image-spec, `layer.md`) become what overlayfs understands: a character device 0/0 for
//! a removed name, the xattr `trusted.overlay.opaque` on a folder that hides what is below.

mod apply;
mod inherit;
mod metadata;
mod pax;
mod sparse;
mod tar_reader;
mod tree;

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::Path;

use rustix::io::Errno;

pub(crate) use inherit::inherit;

/// Bounds of one layer.
#[derive(Debug, Clone)]
pub struct UnpackLimits {
    /// Bytes of the uncompressed tar.
    pub bytes: u64,
    /// Entries of the tar; also the inodes made of them, which folders without entries add to.
    pub entries: u64,
    /// Bytes of memory for what has to be remembered of folders until the layer is whole.
    pub memory: u64,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self {
            bytes: 256 << 30,
            entries: 8_000_000,
            memory: 128 << 20,
        }
    }
}

/// What a layer takes on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Bytes, in whole blocks.
    pub bytes: u64,
    pub inodes: u64,
    /// Folders that have no entry of their own; their owner, mode and time come from the layers
    /// below (see [`inherit`]). In this order each comes before those in it.
    pub implied: BTreeSet<Vec<u8>>,
}

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The tar could not be read or decompressed.
    #[error("cannot read the layer")]
    Read(#[source] io::Error),
    /// Not a tar that we understand.
    #[error("malformed layer: {0}")]
    Malformed(String),
    /// A bound was exceeded.
    #[error("the layer has more than {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// An entry could not be written.
    #[error("cannot {action} {path:?} of the layer")]
    Entry {
        /// The step, as a verb phrase.
        action: &'static str,
        /// Path in the layer.
        path: String,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
}

impl UnpackError {
    /// Whether the disk is full.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        match self {
            // Of xattrs this may say that they do not fit in their place, whatever space there is.
            Self::Entry { action, source, .. } => {
                matches!(*source, Errno::NOSPC | Errno::DQUOT) && *action != metadata::SET_XATTR
            }
            _ => false,
        }
    }
}

/// The answer of a failpoint, in the kernel's terms.
pub(crate) fn errno(passed: io::Result<()>) -> Result<(), Errno> {
    passed.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn malformed(what: impl Into<String>) -> UnpackError {
    UnpackError::Malformed(what.into())
}

/// Unpacks a tar into `root`, an empty folder. Blocks.
pub(crate) fn unpack(
    tar: impl Read,
    root: &Path,
    limits: &UnpackLimits,
) -> Result<Unpacked, UnpackError> {
    apply::Applier::new(root, limits)?.run(tar, limits)
}

#[cfg(test)]
mod tests;
