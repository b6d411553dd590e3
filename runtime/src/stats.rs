//! What pods and containers use.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use joey_cgroup::{Group, Stats, StatsReader, Usage};
use joey_network::netns::{self, InterfaceStats};
use parking_lot::Mutex;

use crate::config::netns_path;
use crate::error::{Error, Result};
use crate::ids;
use crate::model::{ContainerState, NamespaceMode, PodState};
use crate::objects::Container;
use crate::runtime::Runtime;

/// A writable layer is walked at most this often, in the background.
const WALK_INTERVAL: Duration = Duration::from_secs(10);

/// Descriptors that one kept reader holds, roughly; readers may take half of those there are.
const READER_DESCRIPTORS: usize = 10;

/// What a writable layer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerUsage {
    /// Where it is.
    pub path: PathBuf,
    /// Blocks in use, bytes.
    pub used_bytes: u64,
    /// Files and folders.
    pub inodes_used: u64,
    /// When it was counted, ns since the epoch.
    pub timestamp_ns: i64,
}

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
#[derive(Debug, Default, Clone)]
pub(crate) struct StatsCache {
    layers: Arc<Mutex<HashMap<String, Counted>>>,
    readers: Arc<Mutex<HashMap<String, Arc<Mutex<StatsReader>>>>>,
}

#[derive(Debug)]
struct Counted {
    at: Instant,
    under_way: bool,
    usage: Option<LayerUsage>,
}

impl StatsCache {
    pub(crate) fn forget(&self, container_id: &str) {
        self.layers.lock().remove(container_id);
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

    /// The last count. A new one is begun in the background when it is old.
    fn usage(&self, container_id: &str, folder: PathBuf) -> Option<LayerUsage> {
        let mut counts = self.layers.lock();
        let first = !counts.contains_key(container_id);
        let counted = counts
            .entry(container_id.to_owned())
            .or_insert_with(|| Counted {
                at: Instant::now(),
                under_way: false,
                // A new container's layer is nearly empty, so the first count is quick.
                usage: count(&folder),
            });
        if !first && !counted.under_way && counted.at.elapsed() >= WALK_INTERVAL {
            counted.under_way = true;
            let (cache, id) = (self.clone(), container_id.to_owned());
            tokio::task::spawn_blocking(move || {
                let usage = count(&folder);
                if let Some(counted) = cache.layers.lock().get_mut(&id) {
                    *counted = Counted {
                        at: Instant::now(),
                        under_way: false,
                        usage,
                    };
                }
            });
        }
        counted.usage.clone()
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
            writable_layer: self.stats.usage(&record.id, upper),
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
            writable_layer: self.stats.usage(&record.id, upper),
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

/// None when the folder can't be read. Files that vanish meanwhile are passed over.
fn count(folder: &Path) -> Option<LayerUsage> {
    let mut usage = LayerUsage {
        path: folder.to_owned(),
        used_bytes: 0,
        inodes_used: 0,
        timestamp_ns: ids::now(),
    };
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            if usage.inodes_used == 0 {
                return None;
            }
            continue;
        };
        usage.inodes_used += 1;
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            usage.used_bytes += metadata.blocks() * 512;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                usage.inodes_used += 1;
            }
        }
    }
    Some(usage)
}
