//! The shim's program, held in a sealed memory file.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// The program could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error("load the shim's program from {}", path.display())]
pub struct ShimBinaryError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A sealed copy of the shim's program: a container that reaches a shim's `/proc/PID/exe` can
/// change nothing (CVE-2019-5736), and all shims share its pages.
#[derive(Debug)]
pub struct ShimBinary {
    memfd: OwnedFd,
}

impl ShimBinary {
    /// Copies the program at `path`.
    ///
    /// # Errors
    /// When it cannot be read, or there is no memory for it.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ShimBinaryError> {
        let path = path.as_ref();
        let error = |source| ShimBinaryError {
            path: path.to_owned(),
            source,
        };
        let memfd = copy(path).map_err(error)?;
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        fcntl_add_seals(&memfd, seals).map_err(|errno| error(errno.into()))?;
        Ok(Self { memfd })
    }

    /// A path that executes the program in a child of this process.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.memfd.as_raw_fd()))
    }
}

fn copy(path: &Path) -> io::Result<OwnedFd> {
    let mut program = File::open(path)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // A kernel that insists on it (6.3, vm.memfd_noexec) wants to hear that this one is executed.
    let memfd = memfd_create("joey-shim", flags | MemfdFlags::EXEC)
        .or_else(|_| memfd_create("joey-shim", flags))?;
    let mut memfd = File::from(memfd);
    io::copy(&mut program, &mut memfd)?;
    Ok(memfd.into())
}
