//! Pods and containers in memory: the records, and what goes with a living object.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use joey_shim_client::Shim;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::model::{ContainerRecord, ContainerState, Exit, PodRecord};
use crate::recorded::Recorded;

/// A pod sandbox.
#[derive(Debug)]
pub struct Pod {
    recorded: Recorded<PodRecord>,
    containers: Mutex<BTreeMap<String, Arc<Container>>>,
    shim: RwLock<Option<Arc<Shim>>>,
    /// Held by operations that change the pod: a stop never overtakes a create.
    pub(crate) changing: tokio::sync::RwLock<()>,
}

impl Deref for Pod {
    type Target = Recorded<PodRecord>;

    fn deref(&self) -> &Self::Target {
        &self.recorded
    }
}

impl Pod {
    pub(crate) fn new(record: PodRecord) -> Self {
        Self {
            recorded: Recorded::new(&record.id.clone(), record),
            containers: Mutex::default(),
            shim: RwLock::default(),
            changing: tokio::sync::RwLock::default(),
        }
    }

    /// Its containers, in the order of their ids.
    #[must_use]
    pub fn containers(&self) -> Vec<Arc<Container>> {
        self.containers.lock().values().cloned().collect()
    }

    pub(crate) fn add(&self, container: Arc<Container>) {
        self.containers
            .lock()
            .insert(container.id().to_owned(), container);
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
    recorded: Recorded<ContainerRecord>,
    /// Held by operations that change the container.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// The end of the present life.
    ended: Mutex<watch::Sender<Option<Exit>>>,
    /// A later, shorter grace of a stop under way.
    pub(crate) stop_deadline: watch::Sender<Option<tokio::time::Instant>>,
}

impl Deref for Container {
    type Target = Recorded<ContainerRecord>;

    fn deref(&self) -> &Self::Target {
        &self.recorded
    }
}

impl Container {
    pub(crate) fn new(record: ContainerRecord) -> Self {
        Self {
            ended: Mutex::new(watch::Sender::new(record.exit.clone())),
            recorded: Recorded::new(&record.id.clone(), record),
            changing: tokio::sync::Mutex::default(),
            stop_deadline: watch::Sender::new(None),
        }
    }

    /// The state as it is now.
    #[must_use]
    pub fn state(&self) -> ContainerState {
        self.record().state()
    }

    /// Records the end and wakes who waits for it; false when one was recorded before.
    pub(crate) fn end(&self, exit: Exit) -> bool {
        let mut first = false;
        self.change(|record| {
            first = record.exit.is_none();
            record.exit.get_or_insert_with(|| exit.clone());
        });
        if first {
            self.ended.lock().send_replace(Some(exit));
        }
        first
    }

    /// Begins another life of an ended container: it is created again. Who waits for the end of
    /// the former life has it.
    pub(crate) fn renew(&self) {
        self.change(|record| {
            record.started = None;
            record.exit = None;
            record.poststop_done = false;
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
