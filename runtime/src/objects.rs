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

/// From a container's creation to its end; a renewed one has another.
#[derive(Debug)]
struct Life {
    number: u32,
    ended: watch::Sender<Option<Exit>>,
}

/// A container.
#[derive(Debug)]
pub struct Container {
    recorded: Recorded<ContainerRecord>,
    /// Held by operations that change the container.
    pub(crate) changing: tokio::sync::Mutex<()>,
    life: Mutex<Life>,
    /// Held while what an ended life held is given back: the next one does not begin before.
    pub(crate) finishing: tokio::sync::Mutex<()>,
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
            life: Mutex::new(Life {
                number: 0,
                ended: watch::Sender::new(record.exit.clone()),
            }),
            finishing: tokio::sync::Mutex::default(),
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

    /// Which life it is in, for [`Container::end`].
    pub(crate) fn life(&self) -> u32 {
        self.life.lock().number
    }

    /// Records the end of a life and wakes who waits for it; false when one was recorded before.
    pub(crate) fn end(&self, number: u32, exit: Exit) -> bool {
        let life = self.life.lock();
        if life.number != number {
            return false;
        }
        let mut first = false;
        self.change(|record| {
            first = record.exit.is_none();
            record.exit.get_or_insert_with(|| exit.clone());
        });
        if first {
            life.ended.send_replace(Some(exit));
        }
        first
    }

    /// Begins another life of an ended container: it is created again. Who waits for the end of
    /// the former life has it.
    pub(crate) fn renew(&self) {
        let mut life = self.life.lock();
        self.change(|record| {
            record.started = None;
            record.exit = None;
            record.asked = None;
            record.poststop_done = false;
        });
        life.number += 1;
        life.ended = watch::Sender::new(None);
    }

    /// Answers when the container has ended.
    pub(crate) async fn ended(&self) -> Option<Exit> {
        let mut ended = self.life.lock().ended.subscribe();
        ended
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|exit| exit.clone())
    }
}
