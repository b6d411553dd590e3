//! A record in memory and on disk: what pods and containers have in common.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use serde::Serialize;

use crate::error::Result;
use crate::record::RecordStore;

/// An object's record. Readers get it whole, as it was at one moment.
#[derive(Debug)]
pub struct Recorded<T> {
    id: String,
    record: RwLock<Arc<T>>,
    /// Held while the record is written, so that an older one never replaces a newer one; true once
    /// the record is erased for good.
    erased: Mutex<bool>,
}

impl<T: Clone + Serialize> Recorded<T> {
    pub(crate) fn new(id: &str, record: T) -> Self {
        Self {
            id: id.to_owned(),
            record: RwLock::new(Arc::new(record)),
            erased: Mutex::default(),
        }
    }

    /// 64 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The record as it is now.
    #[must_use]
    pub fn record(&self) -> Arc<T> {
        Arc::clone(&self.record.read())
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut T)) {
        change(Arc::make_mut(&mut self.record.write()));
    }

    /// Writes the record as it is now.
    pub(crate) fn save(&self, store: &RecordStore) -> Result<()> {
        let erased = self.erased.lock();
        if *erased {
            return Ok(());
        }
        store.save(&self.id, &*self.record())
    }

    /// Deletes the record; a save that comes late does not bring it back.
    pub(crate) fn erase(&self, store: &RecordStore) -> Result<()> {
        let mut erased = self.erased.lock();
        store.remove(&self.id)?;
        *erased = true;
        Ok(())
    }
}
