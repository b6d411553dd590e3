//! Which layers and blobs are there, and who needs them.
//!
//! Images, holds, leases and running pulls pin objects by [`Pins`]. What nobody pins any more is
//! deleted by the reaper (`reaper.rs`), which is woken when a last pin goes.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedMutexGuard};

use crate::digest::Digest;

/// Name of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// A layer, by chain ID.
    Layer(Digest),
    /// A manifest, index or config, by its digest.
    Blob(Digest),
}

/// An object that is on disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Present {
    pub bytes: u64,
    pub inodes: u64,
    /// Known to survive a power cut.
    pub durable: bool,
    /// Of a layer: the compressed blobs that were proven to unpack to it.
    pub sources: Vec<Digest>,
    /// Of a layer: the registries that gave one of them.
    pub registries: Vec<String>,
}

impl Present {
    pub fn usage(&self) -> Usage {
        Usage {
            bytes: self.bytes,
            inodes: self.inodes,
        }
    }
}

#[derive(Debug, Default)]
struct Object {
    pins: usize,
    present: Option<Present>,
}

/// Disk usage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub bytes: u64,
    pub inodes: u64,
}

impl Usage {
    fn add(&mut self, bytes: u64, inodes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.inodes = self.inodes.saturating_add(inodes);
    }

    fn remove(&mut self, bytes: u64, inodes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.inodes = self.inodes.saturating_sub(inodes);
    }
}

#[derive(Debug, Default)]
struct Inner {
    objects: HashMap<Key, Object>,
    /// Of everything present, and of what is in the trash until it is gone.
    usage: Usage,
    locks: HashMap<Key, Weak<tokio::sync::Mutex<()>>>,
}

/// All objects.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    inner: Mutex<Inner>,
    /// Told when something lost its last pin, or is to be deleted.
    pub wake: Notify,
}

impl Objects {
    /// Pins objects, present or not.
    pub fn pin(self: &Arc<Self>, keys: impl IntoIterator<Item = Key>) -> Pins {
        let keys: Vec<Key> = keys.into_iter().collect();
        let mut inner = self.inner.lock();
        for key in &keys {
            inner.objects.entry(*key).or_default().pins += 1;
        }
        drop(inner);
        Pins {
            objects: Arc::clone(self),
            keys,
        }
    }

    /// The object, if it is on disk.
    pub fn present(&self, key: Key) -> Option<Present> {
        let inner = self.inner.lock();
        inner.objects.get(&key)?.present.clone()
    }

    /// Whether anyone knows of the object.
    pub fn knows(&self, key: Key) -> bool {
        self.inner.lock().objects.contains_key(&key)
    }

    /// An object has come to be on disk, or is known in more detail.
    pub fn insert(&self, key: Key, present: Present) {
        let mut inner = self.inner.lock();
        inner.usage.add(present.bytes, present.inodes);
        let object = inner.objects.entry(key).or_default();
        if let Some(old) = object.present.replace(present) {
            inner.usage.remove(old.bytes, old.inodes);
        }
    }

    /// Whether any of the objects might not survive a power cut.
    pub fn any_volatile(&self, keys: &[Key]) -> bool {
        let inner = self.inner.lock();
        keys.iter()
            .filter_map(|key| inner.objects.get(key)?.present.as_ref())
            .any(|present| !present.durable)
    }

    /// The objects are known to be on disk for good.
    pub fn mark_durable(&self, keys: &[Key]) {
        let mut inner = self.inner.lock();
        for key in keys {
            if let Some(object) = inner.objects.get_mut(key)
                && let Some(present) = &mut object.present
            {
                present.durable = true;
            }
        }
    }

    /// What is on disk for nobody.
    pub fn unpinned(&self) -> Vec<Key> {
        let inner = self.inner.lock();
        let unpinned = inner.objects.iter().filter(|(_, object)| object.pins == 0);
        unpinned.map(|(key, _)| *key).collect()
    }

    /// Forgets an object unless somebody pinned it meanwhile. Its usage counts until [`freed`].
    ///
    /// [`freed`]: Self::freed
    pub fn forget_unpinned(&self, key: Key) -> Option<Present> {
        let mut inner = self.inner.lock();
        if inner.objects.get(&key)?.pins > 0 {
            return None;
        }
        Some(inner.objects.remove(&key)?.present.unwrap_or_default())
    }

    /// Space in the trash has been given back.
    pub fn freed(&self, usage: Usage) {
        self.inner.lock().usage.remove(usage.bytes, usage.inodes);
    }

    /// What is in use.
    pub fn usage(&self) -> Usage {
        self.inner.lock().usage
    }

    /// Waits for the right to make or delete an object.
    pub async fn lock(&self, key: Key) -> OwnedMutexGuard<()> {
        self.lock_of(key).lock_owned().await
    }

    /// The same without waiting.
    pub fn try_lock(&self, key: Key) -> Option<OwnedMutexGuard<()>> {
        self.lock_of(key).try_lock_owned().ok()
    }

    fn lock_of(&self, key: Key) -> Arc<tokio::sync::Mutex<()>> {
        let mut inner = self.inner.lock();
        if let Some(lock) = inner.locks.get(&key).and_then(Weak::upgrade) {
            return lock;
        }
        if inner.locks.len() >= 128 {
            inner.locks.retain(|_, lock| lock.strong_count() > 0);
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        inner.locks.insert(key, Arc::downgrade(&lock));
        lock
    }
}

/// Keeps objects from being deleted.
#[derive(Debug)]
pub(crate) struct Pins {
    objects: Arc<Objects>,
    keys: Vec<Key>,
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut inner = self.objects.inner.lock();
        let mut orphans = false;
        for key in &self.keys {
            let Some(object) = inner.objects.get_mut(key) else {
                continue;
            };
            object.pins = object.pins.saturating_sub(1);
            if object.pins == 0 {
                if object.present.is_some() {
                    orphans = true;
                } else {
                    inner.objects.remove(key);
                }
            }
        }
        drop(inner);
        if orphans {
            self.objects.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_goes_with_its_last_pin_and_not_before() {
        let objects = Arc::new(Objects::default());
        let key = Key::Layer(Digest::of(b"a"));
        let first = objects.pin([key]);
        let second = objects.pin([key]);
        let present = Present {
            bytes: 10,
            inodes: 2,
            ..Present::default()
        };
        objects.insert(key, present.clone());
        objects.insert(key, present);
        assert_eq!(
            objects.usage(),
            Usage {
                bytes: 10,
                inodes: 2
            }
        );
        drop(first);
        assert!(objects.unpinned().is_empty());
        assert!(objects.forget_unpinned(key).is_none());
        drop(second);
        assert_eq!(objects.unpinned(), [key]);
        let again = objects.pin([key]);
        assert!(objects.forget_unpinned(key).is_none(), "pinned meanwhile");
        drop(again);
        let usage = objects.forget_unpinned(key).unwrap().usage();
        assert_eq!(objects.usage().bytes, 10, "still in the trash");
        objects.freed(usage);
        assert_eq!(objects.usage(), Usage::default());
        assert!(!objects.knows(key));
    }
}
