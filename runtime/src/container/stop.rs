//! Stops a container: its stop signal, a grace, then SIGKILL.

use std::sync::Arc;
use std::time::Duration;

use joey_proto::shim::{self, Kill};
use joey_shim_client::{ExitRecord, read_exit_record};
use tokio::time::Instant;

use super::kill;
use crate::error::Result;
use crate::ids;
use crate::model::{Cause, ContainerState, Exit};
use crate::objects::Container;
use crate::runtime::Runtime;

/// Kubernetes does not bound a grace; the clock does.
pub(super) const LONGEST_GRACE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// 128 + SIGKILL.
const KILLED_CODE: i32 = 137;
/// From the end of a process to its shim's word of it.
const EXIT_RECORD_GRACE: Duration = Duration::from_secs(2);

impl Runtime {
    /// Stops a container; an unknown, unstarted or ended one is fine. A grace of zero kills at
    /// once; a second call with a shorter grace shortens the first.
    ///
    /// # Errors
    /// When the processes outlive SIGKILL.
    pub async fn stop_container(self: &Arc<Self>, id: &str, grace: Duration) -> Result<()> {
        let Ok(container) = self.container(id) else {
            return Ok(());
        };
        let deadline = Instant::now() + grace.min(LONGEST_GRACE);
        container.stop_deadline.send_modify(|current| {
            *current = Some(current.map_or(deadline, |current| current.min(deadline)));
        });
        let runtime = Arc::clone(self);
        let key = format!("stop/{}", container.id());
        self.operations
            .run(key, move || async move {
                let stopped = runtime.stop(&container).await;
                container.stop_deadline.send_replace(None);
                stopped
            })
            .await
    }

    async fn stop(self: Arc<Self>, container: &Arc<Container>) -> Result<()> {
        if container.state() != ContainerState::Running {
            return Ok(());
        }
        let mut deadline = container.stop_deadline.subscribe();
        let due = |deadline: Option<Instant>| deadline.unwrap_or_else(Instant::now);
        let now_due = due(*deadline.borrow_and_update());
        if now_due > Instant::now() {
            self.signal(container).await;
        }
        loop {
            let until = due(*deadline.borrow_and_update());
            tokio::select! {
                _ = container.ended() => return Ok(()),
                () = tokio::time::sleep_until(until) => break,
                changed = deadline.changed() => if changed.is_err() { break },
            }
        }
        self.kill_container(container).await
    }

    /// Sends the stop signal. A failure is no reason to wait less: SIGKILL follows.
    async fn signal(&self, container: &Container) {
        let record = container.record();
        let Ok(pod) = self.pod_of(&record) else {
            return;
        };
        let Some(shim) = pod.shim() else { return };
        let request = Kill {
            container_id: record.id.clone(),
            signal: record.launch.stop_signal,
            ..Kill::default()
        };
        if let Err(error) = shim.kill(request).await {
            tracing::warn!(container = record.id, %error, "the stop signal was not delivered");
        }
    }

    /// Kills every process of a container and waits for its recorded end. Works without the shim.
    pub(crate) async fn kill_container(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let record = container.record();
        if record.state() != ContainerState::Running {
            return Ok(());
        }
        let Some(started) = &record.started else {
            return Ok(());
        };
        kill::kill_group(&record.cgroup).await?;
        kill::kill_process(started.pid, started.start_ticks).await?;
        if tokio::time::timeout(EXIT_RECORD_GRACE, container.ended())
            .await
            .is_err()
        {
            self.end_without_shim(container, Cause::ShimLost).await;
        }
        Ok(())
    }

    /// Records the end of a container whose shim does not tell it: from the shim's exit record, or
    /// with `cause`.
    pub(crate) async fn end_without_shim(
        self: &Arc<Self>,
        container: &Arc<Container>,
        cause: Cause,
    ) {
        let record = container.record();
        let folder = self.config.pod_folder(&record.pod_id);
        let exit = match read_exit_record(&folder, &record.id) {
            Ok(Some(record)) => super::exit::exit_from(&exit_of(record)),
            Ok(None) | Err(_) => Exit {
                code: KILLED_CODE,
                at: ids::now(),
                cause,
                oom_kills: 0,
            },
        };
        if let Ok(pod) = self.pod_of(&record) {
            self.finish(&pod, container, exit).await;
        } else {
            container.end(exit);
        }
    }
}

fn exit_of(record: ExitRecord) -> shim::Exit {
    shim::Exit {
        container_id: record.container_id,
        code: record.code,
        signal: record.signal,
        finished_at: record.finished_at,
        oom_kills_before: record.oom_kills_before,
        oom_kills: record.oom_kills,
    }
}
