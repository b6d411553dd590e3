//! Starts a container's process.

use std::sync::Arc;

use joey_proto::shim::{NamespaceMode as ShimNamespace, Rootfs, Start, StartReply};
use joey_shim_client::AttachStreams;
use parking_lot::Mutex;
use tracing::{Instrument as _, debug_span};

use super::attach::{self, AttachSession};
use super::kill::kill_group;
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::ids;
use crate::model::{
    Cause, ContainerRecord, ContainerState, Exit, NamespaceMode, Owner, PidMode, PodRecord,
    PodState, ResolvedUser, Started,
};
use crate::objects::{Container, Pod};
use crate::oci;
use crate::runtime::Runtime;
use crate::selinux::Labels;
use crate::wire::{text, texts};

/// What a container that never started ends with, as containerd has it.
pub(crate) const START_FAILED_CODE: i32 = 128;

impl Runtime {
    /// Starts a created container.
    ///
    /// # Errors
    /// [`Error::WrongState`] unless it is created. After a failed start the container is exited,
    /// with the cause.
    pub async fn start_container(self: &Arc<Self>, id: &str) -> Result<()> {
        self.start_with(id, FirstAttach::default()).await
    }

    /// The same, attached to its output, and with `stdin` to its input, before it runs: nothing is
    /// missed, and the container waits for a reader that is slow. `size`: columns and rows of its
    /// terminal.
    ///
    /// # Errors
    /// As [`Runtime::start_container`]'s.
    pub async fn start_container_attached(
        self: &Arc<Self>,
        id: &str,
        stdin: bool,
        size: Option<(u16, u16)>,
    ) -> Result<AttachSession> {
        let config = &self.container(id)?.record().config;
        let (tty, stdin) = (config.tty, stdin && config.stdin);
        let (session, theirs) = attach::session(tty, stdin, true, !tty)?;
        let first = FirstAttach {
            streams: Arc::new(Mutex::new(Some(theirs))),
            size,
        };
        let left = Arc::clone(&first.streams);
        self.start_with(id, first).await?;
        // Begun by somebody else, or by a shim of before: attached as soon as may be.
        let left = left.lock().take();
        match left {
            Some(theirs) => self.attach_late(id, theirs).await.map(|()| session),
            None => Ok(session),
        }
    }

    async fn start_with(self: &Arc<Self>, id: &str, first: FirstAttach) -> Result<()> {
        let container = self.container(id)?;
        let runtime = Arc::clone(self);
        let key = format!("start/{}", container.id());
        self.operations
            .run(key, move || async move {
                runtime.start(&container, first).await
            })
            .await
    }

    async fn start(self: Arc<Self>, container: &Arc<Container>, first: FirstAttach) -> Result<()> {
        let pod = self.pod_of(&container.record())?;
        let _pod_changing = pod.changing.read().await;
        let _changing = container.changing.lock().await;
        check_state(&pod, container)?;
        let record = container.record();
        let started = self.start_process(&pod, &record, first).await;
        match started {
            Ok(reply) => {
                container.change(|record| record.started = Some(started_from(&reply)));
                self.save_container_or_warn(container);
                self.announce(&pod, container.id(), EventKind::Started);
                Ok(())
            }
            Err(error) => {
                let exit = Exit {
                    code: START_FAILED_CODE,
                    at: ids::now(),
                    cause: Cause::StartFailed(error.chain()),
                    ..Exit::default()
                };
                container.end(container.life(), exit);
                // A shim that answers too late or not at all may have started it.
                if let Err(cleanup) = kill_group(&record.cgroup).await {
                    tracing::warn!(container = record.id, error = %cleanup.chain(), "processes may stay behind");
                }
                if let Err(cleanup) = record.cgroup.remove().await {
                    tracing::warn!(container = record.id, error = %cleanup, "a cgroup stays behind");
                }
                self.save_container_or_warn(container);
                self.announce(&pod, container.id(), EventKind::Stopped);
                self.run_poststop_hooks(container);
                Err(error)
            }
        }
    }

    /// What happened, happened, also where the disk is full: the shim's records tell it again.
    pub(crate) fn save_container_or_warn(&self, container: &Container) {
        if let Err(error) = container.save(&self.container_records) {
            tracing::warn!(container = container.id(), error = %error.chain(), "a record is stale");
        }
    }

    async fn start_process(
        &self,
        pod: &Pod,
        record: &ContainerRecord,
        first: FirstAttach,
    ) -> Result<StartReply> {
        let record = &ContainerRecord {
            config: record.effective(),
            ..record.clone()
        };
        let pod_record = pod.record();
        let shim = pod.shim().ok_or_else(|| Error::WrongState {
            kind: "pod sandbox",
            id: pod.id().to_owned(),
            state: "without a shim",
            operation: "starting a container",
            needs: "ready",
        })?;
        let parent = self.cgroup_parent(&pod_record.config.cgroup_parent, pod.id());
        let resources = oci::cgroup_resources(&record.config)?;
        self.make_limited_pod_group(pod).await?;
        let group = self
            .cgroups
            .create(&parent, &record.id, &resources)
            .instrument(debug_span!("make cgroup"))
            .await
            .map_err(|e| Error::limits("create the container's cgroup", e))?;
        let bundle = self.config.bundle(pod.id(), &record.id);
        let rootfs = bundle.join("rootfs");
        joey_failpoint::hit("bundle.create")
            .and_then(|()| std::fs::create_dir_all(&rootfs))
            .map_err(|e| Error::file("create", &rootfs, e))?;
        let labels = Labels::of(&self.features, &pod_record, record);
        let file_label = labels.map(|labels| labels.file).unwrap_or_default();
        let version = self.cgroups.version();
        let spec = oci::spec(&pod_record, record, &rootfs, version, &file_label)?;
        let spec_path = bundle.join("config.json");
        joey_failpoint::hit("bundle.write")
            .and_then(|()| std::fs::write(&spec_path, spec))
            .map_err(|e| Error::file("write", &spec_path, e))?;

        let rotation = record.config.log_rotation;
        let request = Start {
            container_id: record.id.clone(),
            bundle: text(&bundle),
            rootfs: Some(self.rootfs(&pod_record, record, &file_label)),
            binds: oci::binds(self, &pod_record, record, &file_label).await?,
            process: Some(oci::init_process(self, &pod_record, record)?),
            pid_mode: match &record.config.pid {
                PidMode::Pod => ShimNamespace::Pod,
                PidMode::Container => ShimNamespace::Private,
                PidMode::Node => ShimNamespace::Node,
                PidMode::Target(_) => ShimNamespace::Target,
            }
            .into(),
            target_container: match &record.config.pid {
                PidMode::Target(target) => self.container(target)?.id().to_owned(),
                _ => String::new(),
            },
            cgroup_dirs: texts(&group.dirs()),
            oom_file: text(&group.oom_file()),
            log_path: record
                .config
                .log_path
                .as_deref()
                .map(text)
                .unwrap_or_default(),
            stdin: record.config.stdin,
            stdin_once: record.config.stdin_once,
            network_node: pod_record.config.network == NamespaceMode::Node,
            ipc_node: pod_record.config.ipc == NamespaceMode::Node,
            rootfs_path: text(&rootfs),
            columns: first.size.map_or(0, |(columns, _)| columns.into()),
            rows: first.size.map_or(0, |(_, rows)| rows.into()),
            log_max_bytes: rotation.map_or(0, |rotation| rotation.max_bytes),
            log_max_files: rotation.map_or(0, |rotation| rotation.max_files),
            ..Start::default()
        };
        let streams = first.streams.lock().take_if(|_| shim.attaches_at_start());
        let started = shim.start_attached(request, streams.unwrap_or_default());
        let started = started.instrument(debug_span!("start process")).await;
        group.release();
        started.map_err(|e| Error::step(format!("start container {}", record.config.name), e))
    }

    fn rootfs(&self, pod: &PodRecord, record: &ContainerRecord, label: &str) -> Rootfs {
        let writable = self.config.writable(&record.id);
        Rootfs {
            lowers: texts(&record.lowers),
            upper: text(&writable.join("upper")),
            work: text(&writable.join("work")),
            readonly: record.config.security.readonly_rootfs,
            idmap_lowers: pod.config.user_namespace.is_some(),
            // CRI starts a container once; after a crash of the node its layer is of no use.
            volatile: pod.config.owner == Owner::Cri,
            selinux_label: label.to_owned(),
        }
    }
}

/// What is attached to a container before it runs.
#[derive(Default)]
struct FirstAttach {
    /// Taken by the start that uses them.
    streams: Arc<Mutex<Option<AttachStreams>>>,
    /// Columns and rows.
    size: Option<(u16, u16)>,
}

fn check_state(pod: &Pod, container: &Container) -> Result<()> {
    let wrong = |kind, id: &str, state, needs| Error::WrongState {
        kind,
        id: id.to_owned(),
        state,
        operation: "starting the container",
        needs,
    };
    match container.state() {
        ContainerState::Created => {}
        ContainerState::Running => {
            return Err(wrong("container", container.id(), "running", "created"));
        }
        ContainerState::Exited => {
            return Err(wrong("container", container.id(), "exited", "created"));
        }
        ContainerState::Unknown => {
            return Err(wrong("container", container.id(), "unknown", "created"));
        }
    }
    if pod.record().state != PodState::Ready {
        return Err(wrong("pod sandbox", pod.id(), "not ready", "ready"));
    }
    Ok(())
}

pub(crate) fn started_from(reply: &StartReply) -> Started {
    let user = reply.user.clone().unwrap_or_default();
    Started {
        pid: reply.pid,
        start_ticks: reply.start_time_ticks,
        at: reply.started_at,
        user: ResolvedUser {
            uid: user.uid,
            gid: user.gid,
            groups: user.groups,
        },
    }
}
