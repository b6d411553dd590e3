//! What pods and containers use.

use std::collections::HashMap;
use std::sync::Arc;

use joey_cgroup::{Group, Stats, StatsReader, Usage};
use joey_network::netns::{self, InterfaceStats};
use parking_lot::Mutex;

use crate::config::netns_path;
use crate::error::{Error, Result};
use crate::ids;
use crate::layers::{LayerCounts, LayerUsage};
use crate::model::{ContainerState, NamespaceMode, PodState};
use crate::objects::Container;
use crate::runtime::Runtime;

/// Descriptors that one kept reader holds, roughly; readers may take half of those there are.
const READER_DESCRIPTORS: usize = 10;

/// What a container uses.
#[derive(Debug, Clone)]
pub struct ContainerStats {
    /// From its cgroup.
    pub cgroup: Stats,
    /// Its writable layer, where it has been counted.
    pub writable_layer: Option<LayerUsage>,
}

/// What a container uses, in little: what lists of all containers tell.
#[derive(Debug, Clone)]
pub struct ContainerUsage {
    /// From its cgroup.
    pub cgroup: Usage,
    /// Its writable layer, where it has been counted.
    pub writable_layer: Option<LayerUsage>,
}

/// What a pod uses.
#[derive(Debug, Clone)]
pub struct PodStats {
    /// Its group, which all of its containers' are beneath.
    pub group: Group,
    /// From its cgroup.
    pub cgroup: Stats,
    /// Its interfaces; none with the host's network.
    pub interfaces: Vec<InterfaceStats>,
    /// ns since the epoch.
    pub timestamp_ns: i64,
}

/// The last counts of writable layers, and containers' counters kept open.
#[derive(Debug, Default)]
pub(crate) struct StatsCache {
    pub(crate) layers: LayerCounts,
    readers: Mutex<HashMap<String, Arc<Mutex<StatsReader>>>>,
}

impl StatsCache {
    pub(crate) fn forget(&self, container_id: &str) {
        self.layers.forget(container_id);
        self.close(container_id);
    }

    /// For a container that has ended.
    pub(crate) fn close(&self, container_id: &str) {
        self.readers.lock().remove(container_id);
    }

    fn read(&self, container_id: &str, group: &Group) -> Option<Usage> {
        let reader = self.reader(container_id, group);
        let usage = reader.lock().read();
        if usage.is_none() {
            self.close(container_id);
        }
        usage
    }

    fn reader(&self, container_id: &str, group: &Group) -> Arc<Mutex<StatsReader>> {
        let mut readers = self.readers.lock();
        if let Some(reader) = readers.get(container_id) {
            return Arc::clone(reader);
        }
        let reader = Arc::new(Mutex::new(StatsReader::new(group)));
        if readers.len() < most_readers() {
            readers.insert(container_id.to_owned(), Arc::clone(&reader));
        }
        reader
    }
}

impl Runtime {
    /// What a container uses now.
    ///
    /// # Errors
    /// [`Error::NotFound`], also for one that does not run.
    pub fn container_stats(&self, id: &str) -> Result<ContainerStats> {
        let container = self.container(id)?;
        let record = container.record();
        let cgroup = record
            .cgroup
            .stats()
            .ok_or_else(|| Error::no_container(&record.id))?;
        let upper = self.config.writable(&record.id).join("upper");
        Ok(ContainerStats {
            cgroup,
            writable_layer: self.stats.layers.usage(&record.id, upper),
        })
    }

    /// The same in little, ten times as fast.
    ///
    /// # Errors
    /// [`Error::NotFound`], also for one that does not run.
    pub fn container_usage(&self, container: &Container) -> Result<ContainerUsage> {
        let record = container.record();
        let cgroup = self.stats.read(&record.id, &record.cgroup);
        if container.state() != ContainerState::Running {
            self.stats.close(&record.id);
        }
        let upper = self.config.writable(&record.id).join("upper");
        Ok(ContainerUsage {
            cgroup: cgroup.ok_or_else(|| Error::no_container(&record.id))?,
            writable_layer: self.stats.layers.usage(&record.id, upper),
        })
    }

    /// What a pod uses now.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn pod_stats(&self, id: &str) -> Result<PodStats> {
        let pod = self.pod(id)?;
        let record = pod.record();
        let parent = self.cgroup_parent(&record.config.cgroup_parent, &record.id);
        let group = self.cgroups.parent_group(&parent);
        let cgroup = group.stats().unwrap_or_default();
        let own_network =
            record.config.network != NamespaceMode::Node && record.state == PodState::Ready;
        let interfaces = if own_network {
            netns::interface_stats(&netns_path(&record.id))
                .map_err(|e| Error::step(format!("read the interfaces of pod {}", record.id), e))?
        } else {
            Vec::new()
        };
        Ok(PodStats {
            group,
            cgroup,
            interfaces,
            timestamp_ns: ids::now(),
        })
    }
}

fn most_readers() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.and_then(|n| usize::try_from(n).ok());
    limit.unwrap_or(usize::MAX) / 2 / READER_DESCRIPTORS
}
