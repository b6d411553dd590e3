//! Layers lent to containers: leases in memory, holds on disk.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;

use super::catalog::Hold;
use super::layout::{self, Durability};
use super::objects::{Key, Pins};
use super::record::{self, HoldRecord};
use super::{ImageStore, open};
use crate::digest::Digest;
use crate::image::{Image, LayerLease};

/// Layers could not be leased or held.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The image was removed meanwhile, or never was here.
    #[error("image {0} is not here")]
    Gone(String),
    /// Nobody of that name holds an image.
    #[error("{0} holds no image")]
    NotHeld(String),
    /// An owner's name becomes a file name.
    #[error("malformed owner name {0:?}")]
    Owner(String),
    /// The hold could not be written down.
    #[error("cannot write {path}, by which an image is held")]
    Record {
        /// The hold's file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

pub(crate) fn check_owner(owner: &str) -> Result<(), LeaseError> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if owner.is_empty() || owner.len() > 200 || owner.starts_with('.') || !owner.bytes().all(fine) {
        return Err(LeaseError::Owner(owner.to_owned()));
    }
    Ok(())
}

impl ImageStore {
    /// Keeps an image's layers while the lease lives.
    ///
    /// # Errors
    ///
    /// When the image has been removed and its layers are gone.
    pub fn lease(&self, image: &Image) -> Result<LayerLease, LeaseError> {
        self.lease_layers(&image.layers)
            .ok_or_else(|| LeaseError::Gone(image.id.clone()))
    }

    /// The same for the image that `owner` holds, which may have been removed.
    ///
    /// # Errors
    ///
    /// When `owner` holds nothing, or the layers are damaged.
    pub fn lease_held(&self, owner: &str) -> Result<LayerLease, LeaseError> {
        let held = {
            let catalog = self.core.catalog.lock();
            let hold = catalog.holds.get(owner);
            hold.map(|hold| (hold.record.layers.clone(), hold.record.image))
        };
        let (layers, image) = held.ok_or_else(|| LeaseError::NotHeld(owner.to_owned()))?;
        self.lease_layers(&layers)
            .ok_or_else(|| LeaseError::Gone(image.to_string()))
    }

    fn lease_layers(&self, layers: &[Digest]) -> Option<LayerLease> {
        let core = &self.core;
        let (pins, complete) = self.pin_layers(layers);
        if !complete {
            return None;
        }
        let mut lowers: Vec<PathBuf> = layers
            .iter()
            .rev()
            .map(|chain_id| core.format.lower(&core.layout.layer(chain_id)))
            .collect();
        if lowers.is_empty() {
            lowers.push(core.layout.empty());
        }
        Some(LayerLease {
            lowers,
            _pins: pins,
        })
    }

    /// Pins layers; tells whether all of them are on disk.
    fn pin_layers(&self, layers: &[Digest]) -> (Pins, bool) {
        let keys = || layers.iter().copied().map(Key::Layer);
        let pins = self.core.objects.pin(keys());
        let complete = keys().all(|key| self.core.objects.present(key).is_some());
        (pins, complete)
    }

    /// Keeps an image's layers for `owner` (a container's ID) until [`release`](Self::release),
    /// across restarts of the daemon too. Writes one small file, not flushed. An owner holds one
    /// image: holding the same again changes nothing, holding another replaces it.
    ///
    /// # Errors
    ///
    /// See [`LeaseError`].
    pub fn hold(&self, owner: &str, image_id: &str) -> Result<(), LeaseError> {
        check_owner(owner)?;
        let gone = || LeaseError::Gone(image_id.to_owned());
        let (id, layers) = {
            let catalog = self.core.catalog.lock();
            let held = catalog.holds.get(owner).map(|hold| hold.record.image);
            if held.is_some_and(|held| held.to_string() == image_id) {
                return Ok(());
            }
            let entry = catalog.find(image_id).ok().flatten().ok_or_else(gone)?;
            (entry.record.id, entry.record.layers.clone())
        };
        self.record_hold(owner, id, layers)
    }

    fn record_hold(
        &self,
        owner: &str,
        image: Digest,
        layers: Vec<Digest>,
    ) -> Result<(), LeaseError> {
        let (pins, complete) = self.pin_layers(&layers);
        if !complete {
            return Err(LeaseError::Gone(image.to_string()));
        }
        let record = HoldRecord {
            version: record::VERSION,
            owner: owner.to_owned(),
            image,
            layers,
        };
        self.core.released.lock().retain(|other| other != owner);
        let path = self.core.layout.hold(owner);
        record::encode(&record)
            .and_then(|text| layout::replace(&path, &text, Durability::Lazy))
            .map_err(|source| LeaseError::Record { path, source })?;
        let hold = Hold {
            record,
            _pins: pins,
        };
        let replaced = self
            .core
            .catalog
            .lock()
            .holds
            .insert(owner.to_owned(), hold);
        drop(replaced);
        Ok(())
    }

    /// Holds again what `owner` had, if the record of it is lost: `lowers` as its lease told them.
    ///
    /// # Errors
    ///
    /// See [`LeaseError`].
    pub fn restore_hold(
        &self,
        owner: &str,
        image_id: &str,
        lowers: &[PathBuf],
    ) -> Result<(), LeaseError> {
        check_owner(owner)?;
        if self.core.catalog.lock().holds.contains_key(owner) {
            return Ok(());
        }
        let gone = || LeaseError::Gone(image_id.to_owned());
        let image = image_id.parse().map_err(|_| gone())?;
        let mut layers = Vec::with_capacity(lowers.len());
        for lower in lowers.iter().rev() {
            if *lower != self.core.layout.empty() {
                layers.push(open::layer_of(&self.core, lower).ok_or_else(gone)?);
            }
        }
        tracing::warn!(
            owner,
            "the record of an image's use is lost, and written again"
        );
        self.record_hold(owner, image, layers)
    }

    /// Ends what [`hold`](Self::hold) began; without a hold nothing happens.
    pub fn release(&self, owner: &str) {
        let held = self.core.catalog.lock().holds.remove(owner);
        if held.is_none() {
            return;
        }
        if !self.core.delete_hold(owner) {
            self.core.released.lock().push(owner.to_owned());
            self.core.objects.wake.notify_one();
        }
    }

    /// Releases the holds of all owners but these: at the daemon's start, what died half made.
    pub fn retain_holds(&self, owners: &HashSet<String>) {
        let orphans: Vec<String> = {
            let catalog = self.core.catalog.lock();
            let all = catalog.holds.keys();
            all.filter(|owner| !owners.contains(*owner))
                .cloned()
                .collect()
        };
        for owner in orphans {
            tracing::info!(owner, "releasing the image of an unknown owner");
            self.release(&owner);
        }
    }
}
