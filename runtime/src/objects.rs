//! Pods and containers in memory: the records, and what goes with a living object.

use std::collections::BTreeMap;
use std::sync::Arc;

use joey_shim_client::Shim;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::error::Result;
use crate::model::{ContainerRecord, ContainerState, Exit, PodRecord};
use crate::record::RecordStore;

/// A pod sandbox.
#[derive(Debug)]
pub struct Pod {
    id: String,
    record: RwLock<Arc<PodRecord>>,
    containers: Mutex<BTreeMap<String, Arc<Container>>>,
    shim: RwLock<Option<Arc<Shim>>>,
    /// Held while the record is written, so that an older one never replaces a newer one; true once
    /// the record is erased for good.
    erased: Mutex<bool>,
    /// Held by operations that change the pod: a stop never overtakes a create.
    pub(crate) changing: tokio::sync::RwLock<()>,
}

impl Pod {
    pub(crate) fn new(record: PodRecord) -> Self {
        Self {
            id: record.id.clone(),
            record: RwLock::new(Arc::new(record)),
            containers: Mutex::default(),
            shim: RwLock::default(),
            erased: Mutex::default(),
            changing: tokio::sync::RwLock::default(),
        }
    }

    /// 64 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The record as it is now.
    #[must_use]
    pub fn record(&self) -> Arc<PodRecord> {
        Arc::clone(&self.record.read())
    }

    /// Its containers, in the order of their ids.
    #[must_use]
    pub fn containers(&self) -> Vec<Arc<Container>> {
        self.containers.lock().values().cloned().collect()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut PodRecord)) -> Arc<PodRecord> {
        let mut record = self.record.write();
        change(Arc::make_mut(&mut record));
        Arc::clone(&record)
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

    pub(crate) fn add(&self, container: Arc<Container>) {
        self.containers
            .lock()
            .insert(container.id.clone(), container);
    }

    pub(crate) fn forget(&self, container_id: &str) {
        self.containers.lock().remove(container_id);
    }

    pub(crate) fn shim(&self) -> Option<Arc<Shim>> {
        self.shim.read().clone()
    }

    pub(crate) fn set_shim(&self, shim: Option<Arc<Shim>>) {
        *self.shim.write() = shim;
    }
}

/// A container.
#[derive(Debug)]
pub struct Container {
    id: String,
    record: RwLock<Arc<ContainerRecord>>,
    /// Held while the record is written, so that an older one never replaces a newer one; true once
    /// the record is erased for good.
    erased: Mutex<bool>,
    /// Held by operations that change the container.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// The end of the present life.
    ended: Mutex<watch::Sender<Option<Exit>>>,
    /// A later, shorter grace of a stop under way.
    pub(crate) stop_deadline: watch::Sender<Option<tokio::time::Instant>>,
}

impl Container {
    pub(crate) fn new(record: ContainerRecord) -> Self {
        Self {
            id: record.id.clone(),
            ended: Mutex::new(watch::Sender::new(record.exit.clone())),
            record: RwLock::new(Arc::new(record)),
            erased: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            stop_deadline: watch::Sender::new(None),
        }
    }

    /// 64 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The record as it is now.
    #[must_use]
    pub fn record(&self) -> Arc<ContainerRecord> {
        Arc::clone(&self.record.read())
    }

    /// The state as it is now.
    #[must_use]
    pub fn state(&self) -> ContainerState {
        self.record.read().state()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut ContainerRecord)) -> Arc<ContainerRecord> {
        let mut record = self.record.write();
        change(Arc::make_mut(&mut record));
        Arc::clone(&record)
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

    /// Records the end and wakes who waits for it; false when one was recorded before.
    pub(crate) fn end(&self, exit: Exit) -> bool {
        let mut record = self.record.write();
        if record.exit.is_some() {
            return false;
        }
        Arc::make_mut(&mut record).exit = Some(exit.clone());
        drop(record);
        self.ended.lock().send_replace(Some(exit));
        true
    }

    /// Begins another life of an ended container: it is created again. Who waits for the end of
    /// the former life has it.
    pub(crate) fn renew(&self) {
        self.change(|record| {
            record.started = None;
            record.exit = None;
        });
        *self.ended.lock() = watch::Sender::new(None);
    }

    /// Answers when the container has ended.
    pub(crate) async fn ended(&self) -> Option<Exit> {
        let mut ended = self.ended.lock().subscribe();
        ended
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|exit| exit.clone())
    }
}
