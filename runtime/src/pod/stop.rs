//! Stops a pod: its containers end, its addresses and namespaces are given back.

use std::sync::Arc;
use std::time::Duration;

use joey_network::{DetachRequest, netns};
use joey_shim_client::{Shim, ShimError};

use crate::config::netns_path;
use crate::container::{SIGKILL, START_FAILED_CODE};
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::ids;
use crate::model::{Cause, ContainerState, Exit, NamespaceMode, PodState, Process};
use crate::objects::{Container, Pod};
use crate::runtime::Runtime;

/// How long a shim may take to end by itself.
const SHIM_GRACE: Duration = Duration::from_secs(5);

impl Runtime {
    /// Stops a pod; an unknown or stopped one is fine.
    ///
    /// # Errors
    /// What could not be torn down; a retry goes on from there.
    pub async fn stop_pod(self: &Arc<Self>, id: &str) -> Result<()> {
        let Ok(pod) = self.pod(id) else { return Ok(()) };
        let runtime = Arc::clone(self);
        let key = format!("stop-pod/{}", pod.id());
        self.operations
            .run(
                key,
                move || async move { runtime.stop_known_pod(&pod).await },
            )
            .await
    }

    /// Stops a pod whose containers have all ended; one that has another is left alone.
    ///
    /// # Errors
    /// As [`Runtime::stop_pod`]'s.
    pub async fn stop_ended_pod(self: &Arc<Self>, id: &str) -> Result<()> {
        let Ok(pod) = self.pod(id) else { return Ok(()) };
        let runtime = Arc::clone(self);
        let key = format!("stop-ended-pod/{}", pod.id());
        let stop = move || async move {
            let _changing = pod.changing.write().await;
            let mut containers = pod.containers().into_iter();
            if !containers.all(|container| container.state() == ContainerState::Exited) {
                return Ok(());
            }
            runtime.stop_changing_pod(&pod).await
        };
        self.operations.run(key, stop).await
    }

    async fn stop_known_pod(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<()> {
        let _changing = pod.changing.write().await;
        self.stop_changing_pod(pod).await
    }

    /// The caller holds `pod.changing`.
    pub(super) async fn stop_changing_pod(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<()> {
        let was_ready = pod.record().state == PodState::Ready;
        if was_ready {
            // Recorded before anything is given back: a daemon that is killed now must not find a
            // ready pod without its network.
            pod.change(|record| record.state = PodState::NotReady);
            self.save_or_warn(pod);
        }
        for container in pod.containers() {
            self.note_stop(&container, SIGKILL);
        }
        let torn_down = self.tear_down(pod).await;
        self.save_or_warn(pod);
        if was_ready {
            self.announce(pod, pod.id(), EventKind::Stopped);
        }
        torn_down
    }

    /// A stop must work on a full disk; the next start finds the pod's shim gone and concludes the
    /// same.
    pub(crate) fn save_or_warn(&self, pod: &Pod) {
        if let Err(error) = pod.save(&self.pod_records) {
            tracing::warn!(pod = pod.id(), error = %error.chain(), "the pod's record is stale");
        }
    }

    /// Gives back all that a pod holds while it is ready. Idempotent; every step is tried, and the
    /// first error returned.
    pub(crate) async fn tear_down(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<()> {
        let containers = pod.containers();
        let kills = containers
            .iter()
            .map(|container| self.end_container(pod, container));
        let killed = futures::future::join_all(kills).await;
        // The shim first: it holds the host ports, which are free for others once they are detached.
        let steps = [
            killed.into_iter().collect(),
            self.end_shim(pod).await,
            self.detach_network(pod).await,
            netns::unpin(&netns_path(pod.id()))
                .map_err(|e| Error::step("unpin the network namespace", e)),
            self.remove_pod_cgroups(pod).await,
        ];
        steps.into_iter().collect()
    }

    /// Kills a container that runs. One whose start was under way when both its shim and the daemon
    /// were killed may run too: it is not left as created, or it would be started a second time.
    async fn end_container(self: &Arc<Self>, pod: &Pod, container: &Arc<Container>) -> Result<()> {
        let life = container.life();
        let record = container.record();
        if record.state() == ContainerState::Created && record.cgroup.exists() {
            let exit = Exit {
                code: START_FAILED_CODE,
                at: ids::now(),
                cause: Cause::StartFailed("the pod ended during the start".to_owned()),
                ..Exit::default()
            };
            self.finish(pod, container, life, exit).await;
        }
        self.kill_container(container).await
    }

    async fn detach_network(&self, pod: &Pod) -> Result<()> {
        let record = pod.record();
        let path = netns_path(&record.id);
        if record.config.isolated || (record.network.is_none() && !path.exists()) {
            return Ok(());
        }
        let request = DetachRequest {
            pod_id: record.id.clone(),
            netns: path.exists().then_some(path),
            attachment: record.network.clone(),
        };
        self.network
            .detach(request)
            .await
            .map_err(|e| Error::step("detach the pod from the network", e))?;
        pod.change(|record| record.network = None);
        Ok(())
    }

    async fn end_shim(&self, pod: &Pod) -> Result<()> {
        let folder = self.config.pod_folder(pod.id());
        let shim = match pod.shim() {
            Some(shim) => Some(shim),
            // A daemon that was killed between the spawn and the record left only the socket.
            None => match Shim::connect(&folder).await {
                Ok(shim) => Some(Arc::new(shim)),
                // It runs, and only itself could say who it is.
                Err(error @ ShimError::TimedOut { .. }) if pod.record().shim.is_none() => {
                    return Err(Error::step("find the pod's shim", error));
                }
                // Absent, or about to end.
                Err(_) => None,
            },
        };
        let process = pod.record().shim.or_else(|| {
            let pid = shim.as_ref()?.pid();
            Some((pid, ids::start_ticks(pid)?))
        });
        if let Some(shim) = shim {
            let asked = tokio::time::timeout(SHIM_GRACE, shim.shutdown(true)).await;
            if !matches!(asked, Ok(Ok(()))) {
                tracing::warn!(pod = pod.id(), "the shim does not end by itself");
            }
            pod.set_shim(None);
        }
        if let Some((pid, ticks)) = process {
            crate::container::kill_process(pid, ticks).await?;
            pod.change(|record| record.shim = None);
        }
        match joey_failpoint::hit("shim.socket.remove")
            .and_then(|()| std::fs::remove_file(folder.join("shim.sock")))
        {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::file("remove", folder.join("shim.sock"), error))
            }
            _ => Ok(()),
        }
    }

    async fn remove_pod_cgroups(&self, pod: &Pod) -> Result<()> {
        let record = pod.record();
        let parent = self.cgroup_parent(&record.config.cgroup_parent, &record.id);
        if record.config.pid == NamespaceMode::Pod {
            let group = self.cgroups.open(&parent, &record.id);
            group
                .remove()
                .await
                .map_err(|e| Error::step("remove the pod's cgroup", e))?;
        }
        if record.config.cgroup_parent.is_empty() {
            let group = self.cgroups.parent_group(&parent);
            group
                .remove()
                .await
                .map_err(|e| Error::step("remove the pod's cgroup", e))?;
        }
        Ok(())
    }

    /// The pod ended without being asked: what it held is given back and the cause kept. `shim`:
    /// which one served the life that ended; a pod that was run again since goes on.
    pub(crate) async fn pod_lost(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        shim: Option<Process>,
        cause: &str,
    ) {
        let _changing = pod.changing.write().await;
        let record = pod.record();
        if record.state != PodState::Ready || record.shim != shim {
            return;
        }
        tracing::warn!(pod = pod.id(), cause, "the pod ended");
        pod.change(|record| {
            record.state = PodState::NotReady;
            record.cause = Some(cause.to_owned());
        });
        if let Err(error) = self.tear_down(pod).await {
            tracing::warn!(pod = pod.id(), error = %error.chain(), "the pod is not torn down yet");
        }
        self.save_or_warn(pod);
        self.announce(pod, pod.id(), EventKind::Stopped);
    }
}
