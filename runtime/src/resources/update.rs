//! Changes limits while a container or pod lives.
//!
//! One transaction: the record first, then the kernel, all or nothing; what the kernel refuses is
//! taken back from the record. A daemon that is killed between the two finds the new record at its
//! next start and brings it into force (`restore.rs`): the other way round it could not tell the
//! limits that it had set already from those that somebody else wants.

use std::collections::BTreeMap;
use std::sync::Arc;

use joey_cgroup::Resources;

use super::overlay::{self, LIVE_UPDATE, Overlay};
use crate::error::{Error, Result};
use crate::ids;
use crate::model::{ContainerRecord, ContainerState, Exit};
use crate::oci;
use crate::runtime::Runtime;

/// What is changed of a container that lives.
#[derive(Debug, Clone, Default)]
pub struct LiveUpdate {
    /// −1 removes a limit, what is not given stays.
    pub resources: Resources,
    /// Added to the container's, or replacing those of the same name.
    pub annotations: BTreeMap<String, String>,
    /// The same for the environment of what is executed in it from now on.
    pub env: Vec<(String, Vec<u8>)>,
    /// Who wants it.
    pub reason: String,
}

impl Runtime {
    /// Changes a created or running container: all or nothing.
    ///
    /// # Errors
    /// [`Error::WrongState`] for an ended container; the cgroup refuses.
    pub async fn update_container(self: &Arc<Self>, id: &str, update: LiveUpdate) -> Result<()> {
        let container = self.container(id)?;
        let _changing = container.changing.lock().await;
        let record = container.record();
        let running = match record.state() {
            ContainerState::Running => true,
            ContainerState::Created => false,
            ContainerState::Exited | ContainerState::Unknown => {
                return Err(Error::WrongState {
                    kind: "container",
                    id: record.id.clone(),
                    state: "exited",
                    operation: "updating resources",
                    needs: "created or running",
                });
            }
        };
        let mut changed = ContainerRecord::clone(&record);
        changed.config.annotations.extend(update.annotations);
        for (key, value) in update.env {
            changed.launch.env.retain(|(known, _)| *known != key);
            changed.launch.env.push((key, value));
        }
        if update.resources != Resources::default() {
            changed.overlays = overlay::changed(
                &record.overlays,
                Overlay {
                    name: LIVE_UPDATE.to_owned(),
                    reason: update.reason,
                    at: ids::now(),
                    resources: update.resources,
                },
            );
        }
        let wanted = oci::cgroup_resources(&changed.effective())?;
        let step = || format!("update container {}", record.id);
        let checked = record.cgroup.check(&wanted);
        checked.map_err(|e| Error::limits(step(), e))?;
        let (config, launch, overlays) = (changed.config, changed.launch, changed.overlays);
        container.change(|record| {
            record.config = config;
            record.launch = launch;
            record.overlays = overlays;
        });
        let take_back = || {
            container.change(|now| {
                now.config.clone_from(&record.config);
                now.launch.clone_from(&record.launch);
                now.overlays.clone_from(&record.overlays);
            });
        };
        if let Err(error) = container.save(&self.container_records) {
            take_back();
            return Err(error);
        }
        if running && let Err(error) = record.cgroup.update(&wanted).await {
            take_back();
            self.save_container_or_warn(&container);
            return Err(Error::limits(step(), error));
        }
        Ok(())
    }

    /// Changes a pod's limits, of its own group: those of one that the kubelet made are the kubelet's
    /// to write, and only recorded.
    ///
    /// # Errors
    /// [`Error::NotFound`], or when the cgroup refuses.
    pub async fn update_pod_resources(
        self: &Arc<Self>,
        id: &str,
        overhead: Option<Resources>,
        resources: Option<Resources>,
    ) -> Result<()> {
        let pod = self.pod(id)?;
        let _changing = pod.changing.write().await;
        let record = pod.record();
        let mut overlays = record.overlays.clone();
        for (name, resources) in [(LIVE_UPDATE, resources), ("overhead", overhead)] {
            let Some(resources) = resources else { continue };
            let change = Overlay {
                name: name.to_owned(),
                reason: "UpdatePodSandboxResources".to_owned(),
                at: ids::now(),
                resources,
            };
            overlays = overlay::changed(&overlays, change);
        }
        pod.change(|record| record.overlays = overlays);
        let take_back = || pod.change(|now| now.overlays.clone_from(&record.overlays));
        if let Err(error) = pod.save(&self.pod_records) {
            take_back();
            return Err(error);
        }
        if let Err(error) = self.limit_pod(&pod).await {
            take_back();
            self.save_or_warn(&pod);
            return Err(error);
        }
        Ok(())
    }

    /// Answers when a container has ended.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn wait_container(&self, id: &str) -> Result<Exit> {
        self.container(id)?.ended().await.ok_or(Error::Aborted)
    }
}
