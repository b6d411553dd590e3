//! The shim's program, held in memory.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::error::CallError;

/// A sealed copy of the shim's binary. Containers can't reach the file through `/proc/PID/exe` and
/// change what the next pod runs (CVE-2019-5736); all shims share its pages.
#[derive(Debug)]
pub struct ShimBinary {
    memory: OwnedFd,
}

impl ShimBinary {
    /// Copies and seals the binary at `path`.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn load(path: &Path) -> Result<Self, CallError> {
        let failed = |step| move |source: std::io::Error| CallError::Spawn { step, source };
        let mut source = File::open(path).map_err(failed("open the shim's binary"))?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory =
            memfd_create("joey-shim", flags).map_err(|e| failed("make a memory file")(e.into()))?;
        let mut copy = File::from(memory);
        std::io::copy(&mut source, &mut copy).map_err(failed("copy the shim's binary"))?;
        copy.seek(SeekFrom::Start(0))
            .map_err(failed("copy the shim's binary"))?;
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        fcntl_add_seals(&copy, seals).map_err(|e| failed("seal the shim's binary")(e.into()))?;
        Ok(Self {
            memory: copy.into(),
        })
    }

    /// A path that executes it, in this process and its children before they exec.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.memory.as_raw_fd()))
    }
}
