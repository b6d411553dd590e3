//! Stops a container: its stop signal, a grace, then SIGKILL.

use std::sync::Arc;
use std::time::Duration;

use joey_proto::shim::{self, Kill};
use joey_shim_client::{ExitRecord, Shim, read_exit_record};
use tokio::time::Instant;

use super::kill;
use super::reason::SIGKILL;
use crate::error::{Result, chain};
use crate::ids;
use crate::model::{Cause, ContainerState, Exit};
use crate::objects::Container;
use crate::runtime::Runtime;

/// Kubernetes does not bound a grace; the clock does.
pub(super) const LONGEST_GRACE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const KILLED_CODE: i32 = 128 + SIGKILL;
/// From the end of a process to the word of its shim, which may be short of CPU time or wait for a
/// slow disk under the log. One that hangs keeps nobody waiting for longer.
const SHIM_GRACE: Duration = Duration::from_secs(60);
/// How often the shim is looked at meanwhile.
const SHIM_POLL: Duration = Duration::from_millis(100);

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
            let signal = container.record().launch.stop_signal.cast_signed();
            self.note_stop(container, signal);
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
        self.note_stop(container, SIGKILL);
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
        let life = container.life();
        let record = container.record();
        if record.state() != ContainerState::Running {
            return Ok(());
        }
        let Some(started) = &record.started else {
            return Ok(());
        };
        // The init takes its PID namespace along: also where the group makes processes faster than
        // they can be killed.
        let group = kill::kill_group(&record.cgroup);
        let init = kill::kill_process(started.pid, started.start_ticks);
        let (group, init) = tokio::join!(group, init);
        group.and(init)?;
        let shim = self.pod_of(&record).ok().and_then(|pod| pod.shim());
        if let Some(cause) = untold(container, life, shim.as_deref()).await {
            self.end_without_shim(container, life, cause).await;
        }
        Ok(())
    }

    /// Records the end of a container whose shim does not tell it: from the shim's exit record, or
    /// with `cause`.
    pub(crate) async fn end_without_shim(
        self: &Arc<Self>,
        container: &Arc<Container>,
        life: u32,
        cause: Cause,
    ) {
        let record = container.record();
        let folder = self.config.pod_folder(&record.pod_id);
        let exit = match read_exit_record(&folder, &record.id) {
            Ok(Some(record)) => super::exit::exit_from(&exit_of(record)),
            unknown => {
                if let Err(error) = unknown {
                    tracing::warn!(
                        container = record.id,
                        error = chain(&error),
                        "an end is unknown"
                    );
                }
                Exit {
                    code: KILLED_CODE,
                    at: ids::now(),
                    cause,
                    ..Exit::default()
                }
            }
        };
        if let Ok(pod) = self.pod_of(&record) {
            self.finish(&pod, container, life, exit).await;
        } else {
            container.end(life, exit);
        }
    }
}

/// Waits until the shim has told of a killed container's end; the cause where it will not.
async fn untold(container: &Container, life: u32, shim: Option<&Shim>) -> Option<Cause> {
    let deadline = Instant::now() + SHIM_GRACE;
    loop {
        let ended = tokio::time::timeout(SHIM_POLL, container.ended());
        if ended.await.is_ok() || container.life() != life {
            return None;
        }
        if shim.is_none_or(Shim::has_ended) {
            return Some(Cause::ShimLost);
        }
        if Instant::now() >= deadline {
            return Some(Cause::Signal(SIGKILL));
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
