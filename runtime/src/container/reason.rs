//! Finds out why a container ended: who asked for it, and what the kernel killed.

use super::oom;
use crate::ids;
use crate::model::{Actor, Cause, ContainerRecord, ContainerState, Exit, Owner, StopRequest};
use crate::objects::Container;
use crate::runtime::Runtime;

pub(crate) const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

impl Runtime {
    /// Notes, before it is sent, a signal that may end a container; a daemon that is killed
    /// afterwards still tells who asked. One that need not end it does not displace one that is to.
    pub fn note_stop(&self, container: &Container, signal: i32) {
        let record = container.record();
        if record.state() != ContainerState::Running {
            return;
        }
        let owner = self.pod_of(&record).map(|pod| pod.record().config.owner);
        let by = match owner {
            Ok(Owner::Joey) => Actor::User,
            Ok(Owner::Cri) | Err(_) => Actor::Kubelet,
        };
        let before = record.asked.as_ref();
        if before.is_some_and(|asked| is_stop(&record, asked.signal)) && !is_stop(&record, signal) {
            return;
        }
        let at = ids::now();
        container.change(|record| record.asked = Some(StopRequest { by, signal, at }));
        self.save_container_or_warn(container);
    }

    /// Completes what a shim told of an end by what is known here. Called while the cgroup is there.
    pub(super) async fn explain(&self, container: &Container, mut exit: Exit) -> Exit {
        let record = container.record();
        let asked = record.asked.as_ref();
        exit.asked = asked
            .filter(|asked| explains(&record, asked.signal, &exit.cause))
            .cloned();
        let Some(told) = exit.oom.take() else {
            return exit;
        };
        let parent = record.cgroup.path();
        let group = record.cgroup.clone();
        let init = record.started.as_ref().map_or(0, |started| started.pid);
        let looked = tokio::task::spawn_blocking(move || oom::look(&group, init, told.clone()));
        let Ok(known) = looked.await else {
            tracing::warn!(group = %parent.display(), "the kernel's log could not be looked at");
            return exit;
        };
        // Killed by us, while it was a child that had run out of memory before.
        let by_us = record
            .asked
            .as_ref()
            .is_some_and(|asked| asked.signal == SIGKILL);
        let spared = !known.victims.is_empty() && known.victims.iter().all(|victim| !victim.init);
        if exit.cause == Cause::OutOfMemory && by_us && spared {
            exit.cause = Cause::Signal(SIGKILL);
        }
        exit.oom = Some(known);
        exit
    }
}

/// Whether the signal asks a container to end. Others may tell it something else: SIGHUP to read
/// its configuration again.
fn is_stop(record: &ContainerRecord, signal: i32) -> bool {
    [SIGTERM, SIGKILL].contains(&signal) || record.launch.stop_signal.cast_signed() == signal
}

/// Whether an end of this cause may come of the signal.
fn explains(record: &ContainerRecord, signal: i32, cause: &Cause) -> bool {
    is_stop(record, signal) || *cause == Cause::Signal(signal)
}
