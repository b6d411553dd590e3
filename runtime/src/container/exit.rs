//! Records the end of a container.

use std::sync::Arc;

use joey_proto::shim;
use joey_shim_client::Shim;

use super::reason::SIGKILL;
use crate::events::EventKind;
use crate::model::{Cause, Exit, OomKill};
use crate::objects::{Container, Pod};
use crate::runtime::Runtime;

/// An end as its shim recorded it.
pub(super) fn exit_from(exit: &shim::Exit) -> Exit {
    let oom_kills = exit.oom_kills.saturating_sub(exit.oom_kills_before);
    // A wrapper that exits with 137 after its child's OOM kill counts too.
    let killed = exit.signal == SIGKILL || exit.code == 128 + SIGKILL;
    let cause = match exit.signal {
        _ if killed && oom_kills > 0 => Cause::OutOfMemory,
        0 => Cause::Exit,
        signal => Cause::Signal(signal),
    };
    let oom = (oom_kills > 0).then(|| OomKill {
        kills_before: exit.oom_kills_before,
        kills_after: exit.oom_kills,
        ..OomKill::default()
    });
    Exit {
        code: exit.code,
        at: exit.finished_at,
        cause,
        oom_kills,
        oom,
        ..Exit::default()
    }
}

impl Runtime {
    /// Takes an exit that a shim told. One of a former shim is of a former life, and known.
    pub(crate) async fn container_exited(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        shim: &Arc<Shim>,
        exit: &shim::Exit,
    ) {
        let Some(container) = pod
            .containers()
            .into_iter()
            .find(|container| container.id() == exit.container_id)
        else {
            return;
        };
        // In this order: a life is renewed after its shim.
        let life = container.life();
        if pod
            .shim()
            .is_some_and(|present| Arc::ptr_eq(&present, shim))
        {
            self.finish(pod, &container, life, exit_from(exit)).await;
        }
    }

    /// Records the end of a life, once, and gives back what the container held while it ran.
    pub(crate) async fn finish(
        self: &Arc<Self>,
        pod: &Pod,
        container: &Arc<Container>,
        life: u32,
        exit: Exit,
    ) {
        let _finishing = container.finishing.lock().await;
        let exit = self.explain(container, exit).await;
        if !container.end(life, exit) {
            return;
        }
        self.stats.close(container.id());
        if let Err(error) = container.save(&self.container_records) {
            // The shim's exit record tells it again at the next start.
            tracing::warn!(container = container.id(), error = %error.chain(), "an end is not recorded");
        }
        self.announce(pod, container.id(), EventKind::Stopped);
        let record = container.record();
        // In a shared PID namespace the others of the container outlive its init.
        if let Err(error) = super::kill::kill_group(&record.cgroup).await {
            tracing::warn!(container = record.id, error = %error.chain(), "processes may stay behind");
        }
        if let Err(error) = record.cgroup.remove().await {
            tracing::warn!(container = record.id, %error, "a cgroup stays behind");
        }
        self.run_poststop_hooks(container);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32, signal: i32, oom_kills: u64) -> Cause {
        exit_from(&shim::Exit {
            code,
            signal,
            oom_kills,
            ..shim::Exit::default()
        })
        .cause
    }

    #[test]
    fn out_of_memory_needs_a_kill_and_a_count() {
        assert_eq!(exit(137, 9, 1), Cause::OutOfMemory);
        assert_eq!(exit(137, 0, 1), Cause::OutOfMemory);
        assert_eq!(exit(137, 9, 0), Cause::Signal(9));
        assert_eq!(exit(0, 0, 1), Cause::Exit);
        assert_eq!(exit(143, 15, 1), Cause::Signal(15));
    }
}
