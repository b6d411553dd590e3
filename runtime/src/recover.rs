//! Takes up again, at start, what the records and the living shims tell.
//!
//! The boot id tells a restart of the daemon from a reboot of the node. After a restart every
//! living pod goes on. After a reboot pods are not ready and their containers ended; the records
//! stay until they are removed, or the kubelet would run a finished pod twice.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use joey_network::netns;
use joey_proto::shim;
use joey_shim_client::Shim;

use crate::config::netns_path;
use crate::container::{delete_in_background, held_images, kill_group};
use crate::error::Result;
use crate::ids;
use crate::model::{
    Cause, ContainerRecord, ContainerState, Exit, Owner, PodRecord, PodState, Process,
};
use crate::objects::{Container, Pod};
use crate::runtime::Runtime;

/// How long a start that a killed daemon left under way may take.
const START_GRACE: Duration = Duration::from_secs(10);
const START_POLL: Duration = Duration::from_millis(5);
/// From one attempt to reach a shim to the next.
const RETRY: Duration = Duration::from_secs(1);
/// What a container that a reboot ended has: nobody saw its own code.
const UNKNOWN_CODE: i32 = 255;

impl Runtime {
    pub(crate) async fn recover(self: &Arc<Self>) -> Result<()> {
        let (pods, bad_pods) = self.pod_records.load::<PodRecord>()?;
        let (containers, bad_containers) = self.container_records.load::<ContainerRecord>()?;
        for bad in bad_pods.iter().chain(&bad_containers) {
            let moved_to = bad.moved_to.display();
            tracing::error!(id = bad.id, %moved_to, why = bad.why, "a record is bad and set aside");
        }
        for record in pods {
            self.add_pod(Arc::new(Pod::new(record)));
        }
        for record in containers {
            self.recover_container(record).await;
        }
        let pods = self.all_pods();
        futures::future::join_all(pods.iter().map(|pod| self.recover_pod(pod))).await;
        self.restore_limits().await;
        self.sweep().await;
        self.sweep_images().await;
        Ok(())
    }

    async fn recover_container(self: &Arc<Self>, record: ContainerRecord) {
        let Ok(pod) = self.pod_of(&record) else {
            tracing::warn!(
                container = record.id,
                pod = record.pod_id,
                "a container without its pod is ended"
            );
            self.end_orphan(record).await;
            return;
        };
        let container = Arc::new(Container::new(record));
        self.add_container(&pod, &container);
        // Those that were under way when the daemon ended.
        self.run_poststop_hooks(&container);
    }

    /// A container whose pod's record is lost must not run unseen.
    async fn end_orphan(&self, record: ContainerRecord) {
        if let Err(error) = kill_group(&record.cgroup).await {
            // With its record it is found again at the next start.
            tracing::warn!(container = record.id, error = %error.chain(), "processes may stay behind");
            return;
        }
        if let Err(error) = record.cgroup.remove().await {
            tracing::warn!(container = record.id, %error, "a cgroup stays behind");
        }
        self.remove_folders(&record);
        if let Err(error) = self.container_records.remove(&record.id) {
            tracing::warn!(container = record.id, error = %error.chain(), "a record stays behind");
        }
    }

    async fn recover_pod(self: &Arc<Self>, pod: &Arc<Pod>) {
        let record = pod.record();
        match record.state {
            _ if record.boot_id != self.boot_id => self.rebooted(pod).await,
            PodState::Ready => {
                // Until the shim has told what it runs, what was started can't be told from what was not.
                if self.take_up(pod).await {
                    self.clear_unstarted(pod).await;
                }
            }
            PodState::Starting => {
                // What can't be torn down yet is for a stop, or the next start, to finish.
                pod.change(|record| record.state = PodState::NotReady);
                if !self.torn_down(pod).await {
                    self.save_or_warn(pod);
                } else {
                    let removed = self.remove_pod_folder(pod.id());
                    if let Err(error) = removed.and_then(|()| pod.erase(&self.pod_records)) {
                        tracing::warn!(pod = pod.id(), error = %error.chain(), "a record stays behind");
                    }
                    self.forget_pod(pod.id());
                }
            }
            PodState::NotReady => {
                // A pod that was being run again has these before its record says so.
                let begun = self.config.pod_folder(pod.id()).join("shim.sock").exists()
                    || netns_path(pod.id()).exists();
                let mut containers = pod.containers().into_iter();
                // Their end could not be recorded.
                let running = containers.any(|it| it.state() == ContainerState::Running);
                if begun || running || record.shim.is_some() || record.network.is_some() {
                    self.torn_down(pod).await;
                    self.save_or_warn(pod);
                }
            }
        }
    }

    async fn torn_down(self: &Arc<Self>, pod: &Arc<Pod>) -> bool {
        let result = self.tear_down(pod).await;
        if let Err(error) = &result {
            tracing::warn!(pod = pod.id(), error = %error.chain(), "the pod is not torn down yet");
        }
        result.is_ok()
    }

    async fn rebooted(self: &Arc<Self>, pod: &Arc<Pod>) {
        let starts_again = pod.record().config.owner == Owner::Joey;
        for container in pod.containers() {
            let exit = Exit {
                code: UNKNOWN_CODE,
                at: ids::now(),
                cause: Cause::NodeRebooted,
                ..Exit::default()
            };
            let ended = container.end(container.life(), exit);
            let unsynced = starts_again && self.volatile_mark(container.id()).exists();
            if unsynced {
                container.change(|record| record.unsynced = true);
            }
            if ended || unsynced {
                self.save_container_or_warn(&container);
            }
        }
        pod.change(|record| {
            record.shim = None;
            record.boot_id.clone_from(&self.boot_id);
            if record.state == PodState::Ready {
                record.cause = Some("the node restarted".into());
            }
            record.state = PodState::NotReady;
        });
        self.torn_down(pod).await;
        self.save_or_warn(pod);
    }

    /// Connects to a pod's shim and learns what ended while nobody was connected. One that runs and
    /// does not answer may be short of CPU time or wait for a disk: it is tried again, and the result
    /// is false.
    async fn take_up(self: &Arc<Self>, pod: &Arc<Pod>) -> bool {
        let process = pod.record().shim;
        let runs = process.is_some_and(|(pid, ticks)| ids::start_ticks(pid) == Some(ticks));
        match Shim::connect(&self.config.pod_folder(pod.id())).await {
            Ok(shim) => {
                let shim = Arc::new(shim);
                pod.set_shim(Some(Arc::clone(&shim)));
                self.watch(pod, &shim);
                self.await_starts(&shim).await;
                let caught_up = self.catch_up(pod, &shim).await;
                if !caught_up {
                    let (runtime, pod) = (Arc::clone(self), Arc::clone(pod));
                    tokio::spawn(async move { runtime.keep_catching_up(&pod, &shim).await });
                }
                caught_up
            }
            Err(error) if error.is_gone() || !runs => {
                tracing::warn!(pod = pod.id(), %error, "the shim can't be reached");
                self.pod_lost(pod, process, "the pod's shim ended").await;
                false
            }
            Err(error) => {
                tracing::warn!(pod = pod.id(), %error, "the shim can't be reached yet");
                let (runtime, pod) = (Arc::clone(self), Arc::clone(pod));
                tokio::spawn(async move {
                    tokio::time::sleep(RETRY).await;
                    runtime.take_up_again(&pod, process).await;
                });
                false
            }
        }
    }

    /// Connects anew to the shim that a pod had, unless the pod was stopped or has another by now.
    pub(crate) fn take_up_again<'a>(
        self: &'a Arc<Self>,
        pod: &'a Arc<Pod>,
        process: Option<Process>,
    ) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let record = pod.record();
            if record.state == PodState::Ready && record.shim == process {
                self.take_up(pod).await;
            }
        })
    }

    /// False where the shim does not tell its state.
    async fn catch_up(self: &Arc<Self>, pod: &Arc<Pod>, shim: &Arc<Shim>) -> bool {
        if !self.reconcile(pod, shim).await {
            return false;
        }
        self.hold_ports_again(pod, shim).await;
        self.end_unknown(pod, shim).await;
        self.end_if_lost(pod);
        true
    }

    /// Until it answers, or its connection is lost, which the watch takes care of.
    async fn keep_catching_up(self: &Arc<Self>, pod: &Arc<Pod>, shim: &Arc<Shim>) {
        while !shim.is_lost() {
            tokio::time::sleep(RETRY).await;
            if self.catch_up(pod, shim).await {
                return;
            }
        }
    }

    /// A start that a killed daemon had asked for may be under way. Its end is awaited: a retry would
    /// find the container's cgroup in use, and the container would be told as not started while it
    /// runs. One that takes too long is ended, and can be tried again.
    async fn await_starts(&self, shim: &Shim) {
        let deadline = tokio::time::Instant::now() + START_GRACE;
        while let Ok(state) = shim.state().await
            && !state.starting.is_empty()
        {
            if tokio::time::Instant::now() > deadline {
                for id in &state.starting {
                    tracing::warn!(
                        container = id,
                        "a start of before takes too long and is ended"
                    );
                    self.end_start(id).await;
                }
                return;
            }
            tokio::time::sleep(START_POLL).await;
        }
    }

    /// What a daemon made for a start that it was killed before it could ask for: with systemd the
    /// next start would find its unit in use.
    async fn clear_unstarted(&self, pod: &Pod) {
        if pod.shim().is_none() {
            return;
        }
        for container in pod.containers() {
            if container.state() == ContainerState::Created && container.record().cgroup.exists() {
                self.end_start(container.id()).await;
            }
        }
    }

    /// Whatever is cloned into a group that was killed dies too (Linux 6.1): the retry gets a new one.
    async fn end_start(&self, id: &str) {
        let Ok(container) = self.container(id) else {
            return;
        };
        let group = container.record().cgroup.clone();
        if let Err(error) = kill_group(&group).await {
            tracing::warn!(container = id, error = %error.chain(), "processes may stay behind");
        }
        if let Err(error) = group.remove().await {
            tracing::warn!(container = id, %error, "a cgroup stays behind");
        }
    }

    /// The shim holds the host ports' sockets, unless it is an older one or was not asked to.
    async fn hold_ports_again(&self, pod: &Pod, shim: &Shim) {
        let record = pod.record();
        let Some(network) = record.network.as_ref().filter(|_| shim.held_sockets() == 0) else {
            return;
        };
        if let Err(error) = self.network.hold_ports(pod.id(), network) {
            tracing::warn!(pod = pod.id(), %error, "a host port is not held");
        } else if let Err(error) = self.hand_over_ports(pod, shim).await {
            tracing::warn!(pod = pod.id(), error = %error.chain(), "host ports are not held");
        }
    }

    /// A container whose record is lost must not run unseen: the kubelet starts another.
    async fn end_unknown(&self, pod: &Pod, shim: &Shim) {
        let state = match shim.state().await {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(pod = pod.id(), %error, "containers without a record may run");
                return;
            }
        };
        let record = pod.record();
        let parent = self.cgroup_parent(&record.config.cgroup_parent, pod.id());
        let known: HashSet<String> = pod
            .containers()
            .iter()
            .map(|container| container.id().to_owned())
            .collect();
        for told in state.containers {
            let id = &told.container_id;
            if known.contains(id) {
                continue;
            }
            tracing::warn!(container = id, "a container without a record is ended");
            let group = self.cgroups.open(&parent, id);
            if let Err(error) = kill_group(&group).await {
                tracing::warn!(container = id, error = %error.chain(), "processes may stay behind");
            }
            if let Err(error) = group.remove().await {
                tracing::warn!(container = id, %error, "a cgroup stays behind");
            }
            if let Err(error) = shim.delete(id).await {
                tracing::warn!(container = id, %error, "the shim keeps an ended container");
            }
        }
    }

    /// Learns from a shim what ended; false when it does not answer.
    pub(crate) async fn reconcile(self: &Arc<Self>, pod: &Arc<Pod>, shim: &Arc<Shim>) -> bool {
        // Before the shim is asked: it does not know yet what is started meanwhile.
        let mut running = pod.containers();
        running.retain(|container| container.state() == ContainerState::Running);
        let lives: Vec<_> = running.iter().map(|container| container.life()).collect();
        let state = match shim.state().await {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(pod = pod.id(), %error, "the shim does not tell its state");
                return false;
            }
        };
        let told: HashMap<_, _> = state
            .containers
            .iter()
            .map(|container| (container.container_id.as_str(), container))
            .collect();
        for container in pod.containers() {
            if let Some(told) = told.get(container.id()) {
                self.take_over(&container, told);
                if let Some(exit) = &told.exit {
                    self.container_exited(pod, shim, exit).await;
                }
            }
        }
        for (container, life) in running.iter().zip(lives) {
            if !told.contains_key(container.id()) {
                self.end_without_shim(container, life, Cause::ShimLost)
                    .await;
            }
        }
        true
    }

    /// A container that was started while its record could not be written.
    fn take_over(&self, container: &Container, told: &shim::ContainerState) {
        let Some(reply) = &told.started else { return };
        if container.record().started.is_some() {
            return;
        }
        container.change(|record| record.started = Some(crate::container::started_from(reply)));
        self.save_container_or_warn(container);
    }

    /// Takes away what no record owns.
    async fn sweep(self: &Arc<Self>) {
        for id in names(&self.config.state.join("pods")) {
            if self.pod(&id).is_ok() {
                continue;
            }
            let folder = self.config.pod_folder(&id);
            let ended = match Shim::connect(&folder).await {
                Ok(shim) => shim.shutdown(true).await,
                Err(error) if error.is_gone() => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                tracing::warn!(pod = id, %error, "a shim without a record stays behind");
                continue;
            }
            // Joey's own parent; one that the kubelet made is the kubelet's.
            let group = self.cgroups.parent_group(&self.cgroup_parent("", &id));
            if let Err(error) = group.remove().await {
                tracing::warn!(pod = id, %error, "a cgroup stays behind");
            }
            if let Err(error) = netns::unpin(&netns_path(&id)) {
                tracing::warn!(pod = id, %error, "a network namespace stays behind");
            }
            drop(
                joey_failpoint::hit("recover.folder.remove")
                    .and_then(|()| joey_removal::remove(&folder)),
            );
        }
        let writable = self.config.root.join("writable");
        for id in names(&writable) {
            if self.container(&id).is_err() {
                delete_in_background(writable.join(id));
            }
        }
        let trash = self.config.root.join("trash");
        for id in names(&trash) {
            delete_in_background(trash.join(id));
        }
        let mut pods = Vec::new();
        for pod in self.all_pods() {
            if let Some(network) = &pod.record().network
                && let Err(error) = self.network.restore(pod.id(), network).await
            {
                tracing::warn!(pod = pod.id(), %error, "the pod's network is not as it was");
            }
            pods.push(pod.id().to_owned());
        }
        if let Err(error) = self.network.gc(&pods).await {
            tracing::warn!(%error, "network leftovers stay behind");
        }
    }

    /// Lets go of the images that no container holds any more, and holds again those whose hold is
    /// lost: a running container must not lose its layers.
    async fn sweep_images(&self) {
        let pods = self.all_pods();
        let mut owners = HashSet::new();
        for container in pods.iter().flat_map(|pod| pod.containers()) {
            for held in held_images(&container.record()) {
                let restored = self
                    .images
                    .restore_hold(&held.owner, held.image_id, held.lowers);
                if let Err(error) = restored {
                    tracing::warn!(container = container.id(), %error, "an image is not held");
                }
                owners.insert(held.owner);
            }
        }
        self.images.retain_holds(&owners);
        if let Err(error) = self.images.gc().await {
            tracing::warn!(%error, "leftovers of images stay behind");
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
