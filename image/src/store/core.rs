//! What all operations of a store share.

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::catalog::{Catalog, PinnedNames};
use super::layout::Layout;
use super::objects::{Key, Objects};
use crate::digest::Digest;
use crate::layer::LayerFormat;
use crate::platform::HostPlatform;
use crate::pull::places::Places;
use crate::registry::Registries;
use crate::unpack::UnpackLimits;

#[derive(Debug)]
pub(crate) struct Core {
    pub layout: Layout,
    pub objects: Arc<Objects>,
    pub catalog: Mutex<Catalog>,
    /// Held while image records and the catalog change together.
    pub records: tokio::sync::Mutex<()>,
    /// Owners whose holds are gone, but for their files.
    pub released: Mutex<Vec<String>>,
    pub pinned: PinnedNames,
    pub format: Box<dyn LayerFormat>,
    pub registries: Registries,
    pub places: Places,
    pub limits: UnpackLimits,
    pub platform: HostPlatform,
    /// Locked as long as the store is in use.
    pub _lock: File,
}

impl Core {
    /// Runs blocking file work off the async threads.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        tokio::task::spawn_blocking(work)
            .await
            .map_err(io::Error::other)?
    }

    /// Deletes the file of a hold; false where it can't be.
    pub fn delete_hold(&self, owner: &str) -> bool {
        let path = self.layout.hold(owner);
        match joey_failpoint::hit("image.hold.remove").and_then(|()| std::fs::remove_file(&path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "cannot delete a hold yet");
                false
            }
            _ => true,
        }
    }

    /// A blob kept here, if it is whole.
    pub async fn local_blob(self: &Arc<Self>, digest: Digest) -> Option<Bytes> {
        self.objects.present(Key::Blob(digest))?;
        let path = self.layout.blob(&digest);
        let bytes = self.blocking(move || std::fs::read(path)).await.ok()?;
        (Digest::of(&bytes) == digest).then(|| Bytes::from(bytes))
    }
}
