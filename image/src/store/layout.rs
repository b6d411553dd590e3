//! Where things are below the store's root, and how small files are replaced.
//!
//! ```text
//! lock                         held by the one process that uses the store
//! images/<id>.json             one record per image
//! holds/<owner>.json           layers that an owner needs until it lets go
//! content/blobs/sha256/<hex>   manifests, indexes, configs
//! layers/<chain id>/           layer.json, and what the layer's format keeps
//! staging/<session>/           layers being written
//! trash/                       what is being deleted
//! quarantine/                  records that could not be read
//! empty/                       the lower of an image without layers
//! ```

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::digest::Digest;

/// Paths of one store.
#[derive(Debug)]
pub(crate) struct Layout {
    pub root: PathBuf,
    session: String,
    counter: AtomicU64,
}

impl Layout {
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            session: format!("{:016x}", rand::random::<u64>()),
            counter: AtomicU64::new(0),
        }
    }

    /// Makes the folders. Nobody but root gets in: images have set-user-ID programs, and secrets in
    /// their configs (CVE-2021-41103). Overlays are mounted by root, for user namespaces too.
    pub fn create(&self) -> io::Result<()> {
        for folder in [
            self.images(),
            self.holds(),
            self.blobs(),
            self.layers(),
            self.root.join("staging"),
            self.trash(),
            self.quarantine(),
            self.empty(),
        ] {
            fs::create_dir_all(folder)?;
        }
        fs::set_permissions(&self.root, fs::Permissions::from_mode(0o700))?;
        fs::set_permissions(self.empty(), fs::Permissions::from_mode(0o755))
    }

    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    pub fn image(&self, id: &Digest) -> PathBuf {
        self.images().join(format!("{}.json", id.hex()))
    }

    pub fn holds(&self) -> PathBuf {
        self.root.join("holds")
    }

    pub fn hold(&self, owner: &str) -> PathBuf {
        self.holds().join(format!("{owner}.json"))
    }

    pub fn blobs(&self) -> PathBuf {
        self.root.join("content/blobs/sha256")
    }

    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub fn layer(&self, chain_id: &Digest) -> PathBuf {
        self.layers().join(chain_id.hex())
    }

    pub fn empty(&self) -> PathBuf {
        self.root.join("empty")
    }

    pub fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    pub fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    fn staging(&self) -> PathBuf {
        self.root.join("staging").join(&self.session)
    }

    fn unique(&self) -> String {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number}", self.session)
    }

    /// A new folder to write a layer in.
    pub fn stage(&self) -> io::Result<PathBuf> {
        let folder = self.staging().join(self.unique());
        joey_failpoint::hit("image.stage")?;
        // With the first one: a daemon must start where nothing can be made any more.
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Moves something out of sight, to be deleted later, and returns where it is now; absent is
    /// fine.
    pub fn discard(&self, path: &Path) -> io::Result<PathBuf> {
        let place = self.trash().join(self.unique());
        joey_failpoint::hit("image.discard")?;
        match fs::rename(path, &place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(place),
        }
    }

    /// Staging folders of processes that are gone.
    pub fn abandoned_stages(&self) -> io::Result<Vec<PathBuf>> {
        let own = self.staging();
        Ok(entries(&self.root.join("staging"))?
            .into_iter()
            .filter(|path| *path != own)
            .collect())
    }

    /// Puts a record that cannot be used aside; returns where it is now.
    pub fn quarantine_file(&self, path: &Path) -> io::Result<PathBuf> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let aside = self.quarantine().join(format!("{name}.{}", self.unique()));
        fs::rename(path, &aside)?;
        Ok(aside)
    }
}

/// The paths of a folder's entries.
pub(crate) fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect()
}

/// Whether a replaced file must outlive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Flushed when the caller syncs the whole file system, or not needed after a power cut.
    Lazy,
    /// On disk before the call returns.
    Synced,
}

/// Replaces a file as a whole. Blocks.
pub(crate) fn replace(path: &Path, content: &[u8], durability: Durability) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{:08x}.tmp", rand::random::<u32>()));
    let write = || {
        joey_failpoint::hit("image.file.create")?;
        let mut file = File::create_new(&temporary)?;
        file.write_all(content)?;
        if durability == Durability::Synced {
            file.sync_data()?;
        }
        joey_failpoint::hit("image.file.rename")?;
        fs::rename(&temporary, path)
    };
    if let Err(error) = write() {
        // The first error counts; a leftover is swept at the next start.
        drop(fs::remove_file(&temporary));
        return Err(error);
    }
    if durability == Durability::Synced {
        sync_folder(folder)?;
    }
    Ok(())
}

/// Makes renames and removals in a folder durable. Blocks.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    joey_failpoint::hit("image.sync")?;
    File::open(folder)?.sync_all()
}

/// Whether a file is the rest of an interrupted [`replace`].
pub(crate) fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') && name.ends_with(".tmp")
}
