//! Life-cycle events.

use tokio::sync::broadcast;

/// How many events a slow subscriber may lag before it loses the oldest.
const CAPACITY: usize = 4096;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Made.
    Created,
    /// Its process runs.
    Started,
    /// It ended.
    Stopped,
    /// Its record is gone.
    Deleted,
}

/// Something that happened to a pod or a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The pod.
    pub pod_id: String,
    /// The container; the pod's own id for an event of the pod.
    pub container_id: String,
    /// What happened.
    pub kind: EventKind,
    /// ns since the epoch.
    pub at: i64,
    /// Who asked for the pod.
    pub owner: crate::model::Owner,
}

/// Sends events to any number of subscribers; never waits for one.
#[derive(Debug)]
pub(crate) struct Events(broadcast::Sender<Event>);

impl Events {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(CAPACITY))
    }

    pub(crate) fn send(&self, event: Event) {
        // An error only says that nobody listens.
        drop(self.0.send(event));
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}
