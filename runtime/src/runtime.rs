//! The runtime: its objects and what serves them all.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use joey_cgroup::Cgroups;
use joey_image::ImageStore;
use joey_network::Network;
use joey_shim_client::ShimBinary;
use parking_lot::RwLock;
use tokio::sync::broadcast;

use crate::apparmor;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::events::{Event, EventKind, Events};
use crate::features::Features;
use crate::host_paths::HostPaths;
use crate::ids;
use crate::model::{ContainerRecord, Owner};
use crate::objects::{Container, Pod};
use crate::operation::Operations;
use crate::record::RecordStore;
use crate::stats::StatsCache;

/// A runtime handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handler {
    /// Empty for the default one.
    pub name: String,
}

/// What the runtime is and can do.
#[derive(Debug, Clone)]
pub struct RuntimeInfo {
    /// v1, hybrid or v2.
    pub cgroup_version: joey_cgroup::Version,
    /// Who manages cgroups.
    pub cgroup_driver: joey_cgroup::Driver,
    /// `/run/joey`.
    pub state: PathBuf,
    /// `/var/lib/joey`.
    pub root: PathBuf,
    /// The kernel's release.
    pub kernel: String,
    /// What the kernel has, probed at start.
    pub features: Features,
    /// The default one first.
    pub handlers: Vec<Handler>,
}

/// Pods and containers of this node.
#[derive(Debug)]
pub struct Runtime {
    pub(crate) config: Config,
    pub(crate) boot_id: String,
    pub(crate) features: Features,
    pub(crate) images: Arc<ImageStore>,
    pub(crate) cgroups: Cgroups,
    pub(crate) network: Arc<Network>,
    pub(crate) shim_binary: ShimBinary,
    pub(crate) seccomp: joey_seccomp::Cache,
    pub(crate) stats: StatsCache,
    pub(crate) host_paths: HostPaths,
    pub(crate) events: Events,
    pub(crate) pod_records: RecordStore,
    pub(crate) container_records: RecordStore,
    pods: RwLock<BTreeMap<String, Arc<Pod>>>,
    containers: RwLock<HashMap<String, Arc<Container>>>,
    pub(crate) pod_operations: Operations<String>,
    pub(crate) operations: Operations<()>,
}

impl Runtime {
    /// Opens the state folders, reads the records and takes up again every pod that lives.
    ///
    /// # Errors
    /// When a folder, the shim's binary, the cgroups or the network can't be used; never for a bad
    /// record.
    pub async fn open(config: Config, images: Arc<ImageStore>) -> Result<Arc<Self>> {
        // Containers' set-user-id programs are not for the node's users (CVE-2021-41103). Through
        // the run folder the roots of user namespaces reach their pods' files.
        let folders = [
            (config.state.join("pods"), 0o711),
            (config.root.join("writable"), 0o700),
            (config.root.join("trash"), 0o700),
        ];
        for (folder, mode) in folders {
            std::fs::create_dir_all(&folder).map_err(|e| Error::file("create", &folder, e))?;
            std::fs::set_permissions(&folder, Permissions::from_mode(mode))
                .map_err(|e| Error::file("set the mode of", &folder, e))?;
        }
        let cgroups =
            Cgroups::detect(config.cgroup_driver).map_err(|e| Error::step("use the cgroups", e))?;
        let network = Network::open(config.network.clone())
            .await
            .map_err(|e| Error::step("open the network", e))?;
        let shim_binary = ShimBinary::load(&config.shim)
            .map_err(|e| Error::step(format!("load the shim {}", config.shim.display()), e))?;
        let runtime = Arc::new(Self {
            boot_id: ids::boot_id()?,
            features: Features::probe(),
            pod_records: RecordStore::open(&config.root, "pods")?,
            container_records: RecordStore::open(&config.root, "containers")?,
            images,
            cgroups,
            network,
            shim_binary,
            seccomp: joey_seccomp::Cache::new(),
            stats: StatsCache::default(),
            host_paths: HostPaths::default(),
            events: Events::new(),
            pods: RwLock::default(),
            containers: RwLock::default(),
            pod_operations: Operations::new(),
            operations: Operations::new(),
            config,
        });
        if runtime.features.apparmor {
            apparmor::load_default().await;
        }
        runtime.recover().await?;
        let flushed = Arc::clone(&runtime);
        tokio::spawn(async move {
            tokio::join!(
                flushed.pod_records.flush_forever(),
                flushed.container_records.flush_forever()
            )
        });
        Ok(runtime)
    }

    /// What the runtime is and can do.
    #[must_use]
    pub fn info(&self) -> RuntimeInfo {
        let names = std::iter::once(String::new()).chain(self.config.handlers.keys().cloned());
        RuntimeInfo {
            cgroup_version: self.cgroups.version(),
            cgroup_driver: self.cgroups.driver(),
            state: self.config.state.clone(),
            root: self.config.root.clone(),
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            features: self.features,
            handlers: names.map(|name| Handler { name }).collect(),
        }
    }

    /// Whether pods can have addresses.
    #[must_use]
    pub fn network_status(&self) -> joey_network::Status {
        self.network.status()
    }

    /// Takes the node's pod ranges, from the kubelet.
    ///
    /// # Errors
    /// When a range is malformed.
    pub async fn set_pod_cidrs(&self, cidrs: Vec<String>) -> Result<()> {
        self.network
            .set_pod_cidr(&cidrs)
            .await
            .map_err(|e| Error::step(format!("use the pod ranges {}", cidrs.join(",")), e))
    }

    /// The events from now on. A slow subscriber loses the oldest.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// An owner's pods.
    #[must_use]
    pub fn pods(&self, owner: Owner) -> Vec<Arc<Pod>> {
        let pods = self.pods.read();
        pods.values()
            .filter(|pod| pod.record().config.owner == owner)
            .cloned()
            .collect()
    }

    /// An owner's containers.
    #[must_use]
    pub fn containers(&self, owner: Owner) -> Vec<Arc<Container>> {
        self.pods(owner)
            .iter()
            .flat_map(|pod| pod.containers())
            .collect()
    }

    /// Ids of the images that an owner's containers were made from. The kubelet must not collect
    /// those of the `joey` command line.
    #[must_use]
    pub fn images_in_use(&self, owner: Owner) -> HashSet<String> {
        let containers = self.containers(owner);
        containers
            .iter()
            .map(|container| container.record().config.image.id.clone())
            .collect()
    }

    /// A pod by id or unambiguous prefix of it.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn pod(&self, id: &str) -> Result<Arc<Pod>> {
        let pods = self.pods.read();
        if let Some(pod) = pods.get(id) {
            return Ok(Arc::clone(pod));
        }
        let mut matches = pods
            .range(id.to_owned()..)
            .take_while(|(key, _)| key.starts_with(id));
        match (matches.next(), matches.next()) {
            (Some((_, pod)), None) if !id.is_empty() => Ok(Arc::clone(pod)),
            _ => Err(Error::no_pod(id)),
        }
    }

    /// A container by id or unambiguous prefix of it.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn container(&self, id: &str) -> Result<Arc<Container>> {
        let containers = self.containers.read();
        if let Some(container) = containers.get(id) {
            return Ok(Arc::clone(container));
        }
        let mut matches = containers
            .values()
            .filter(|container| container.id().starts_with(id));
        match (matches.next(), matches.next()) {
            (Some(container), None) if !id.is_empty() => Ok(Arc::clone(container)),
            _ => Err(Error::no_container(id)),
        }
    }

    pub(crate) fn all_pods(&self) -> Vec<Arc<Pod>> {
        self.pods.read().values().cloned().collect()
    }

    pub(crate) fn pod_of(&self, container: &ContainerRecord) -> Result<Arc<Pod>> {
        self.pods
            .read()
            .get(&container.pod_id)
            .cloned()
            .ok_or_else(|| Error::no_pod(&container.pod_id))
    }

    pub(crate) fn add_pod(&self, pod: Arc<Pod>) {
        self.pods.write().insert(pod.id().to_owned(), pod);
    }

    pub(crate) fn forget_pod(&self, id: &str) {
        self.pods.write().remove(id);
    }

    pub(crate) fn add_container(&self, pod: &Pod, container: &Arc<Container>) {
        self.containers
            .write()
            .insert(container.id().to_owned(), Arc::clone(container));
        pod.add(Arc::clone(container));
    }

    pub(crate) fn forget_container(&self, pod: &Pod, id: &str) {
        self.containers.write().remove(id);
        pod.forget(id);
    }

    pub(crate) fn announce(&self, pod: &Pod, container_id: &str, kind: EventKind) {
        self.events.send(Event {
            pod_id: pod.id().to_owned(),
            container_id: container_id.to_owned(),
            kind,
            at: ids::now(),
            owner: pod.record().config.owner,
        });
    }
}
