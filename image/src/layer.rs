//! What a layer is on disk: a format writes it from a tar and offers it as a lower of an overlay.

use std::fmt::Debug;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::unpack::{self, UnpackError, UnpackLimits, Unpacked};

/// A way to keep layers.
///
/// A layer lives in a folder of its own. It is written into a staging folder, completed there once
/// the layers below are known, and then renamed into place as a whole.
pub(crate) trait LayerFormat: Send + Sync + Debug {
    /// Writes the content of a tar. Blocks.
    fn write(
        &self,
        tar: &mut dyn Read,
        folder: &Path,
        limits: &UnpackLimits,
    ) -> Result<Unpacked, UnpackError>;

    /// Takes over what depends on the layers below, `lowers`, topmost first. Blocks.
    fn complete(
        &self,
        folder: &Path,
        written: &Unpacked,
        lowers: &[PathBuf],
    ) -> Result<(), UnpackError>;

    /// What overlayfs gets as the lower.
    fn lower(&self, folder: &Path) -> PathBuf;
}

/// A layer as a plain directory, `fs` in the layer's folder.
#[derive(Debug)]
pub(crate) struct Directory;

const CONTENT: &str = "fs";

impl LayerFormat for Directory {
    fn write(
        &self,
        tar: &mut dyn Read,
        folder: &Path,
        limits: &UnpackLimits,
    ) -> Result<Unpacked, UnpackError> {
        let root = folder.join(CONTENT);
        make_root(&root).map_err(|error| UnpackError::Entry {
            action: "make",
            path: "/".to_owned(),
            source: rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO),
        })?;
        unpack::unpack(tar, &root, limits)
    }

    fn complete(
        &self,
        folder: &Path,
        written: &Unpacked,
        lowers: &[PathBuf],
    ) -> Result<(), UnpackError> {
        unpack::inherit(&folder.join(CONTENT), &written.implied, lowers)
    }

    fn lower(&self, folder: &Path) -> PathBuf {
        folder.join(CONTENT)
    }
}

/// The root's mode must not hang on the process's umask.
fn make_root(root: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    joey_failpoint::hit("layer.root.create")?;
    std::fs::create_dir(root)?;
    std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o755))
}
