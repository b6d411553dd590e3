//! The network of a node: which kind pods get, and the way to it.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::builtin::{Builtin, RestoreError, StartError};
use crate::cni::Cni;
use crate::config::{Mode, NetworkConfig};
use crate::error::{AttachError, DetachError, GcError, LoopbackError, OpenError, SetPodCidrError};
use crate::held::{Held, HoldError};
use crate::ipnet::{IpNet, ParseIpNetError};
use crate::netlink::{Batch, route};
use crate::types::{AttachRequest, Attachment, DetachRequest, Provider, Status};
use crate::worker::{Home, Workers};

const WORKERS: usize = 2;
/// Until a built-in network that can't be started is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// For plugins to collect their leftovers.
const GC_TIME: Duration = Duration::from_secs(20);

/// The network of a node.
#[derive(Debug)]
pub struct Network {
    config: NetworkConfig,
    workers: Workers,
    builtin: Builtin,
    cni: Cni,
    /// Of runtime handlers that have configurations of their own.
    handlers: BTreeMap<String, Cni>,
    held: Held,
    /// Why the built-in network is not there, while it should be.
    trouble: Mutex<Option<String>>,
    starting: tokio::sync::Mutex<()>,
}

impl Network {
    /// Opens the network in the caller's network namespace. What keeps pods from being attached is
    /// told by [`Network::status`], not here: a node's daemon starts all the same.
    pub async fn open(config: NetworkConfig) -> Result<Arc<Self>, OpenError> {
        for path in [&config.state_dir, &config.run_dir] {
            std::fs::create_dir_all(path).map_err(|source| OpenError::Folder {
                path: path.clone(),
                source,
            })?;
        }
        let workers = Workers::start(WORKERS)?;
        let held = Held::new(config.host_ports_bind);
        let builtin =
            Builtin::open(&config, workers.clone(), held.clone()).map_err(OpenError::Leases)?;
        let cni = Cni::open(&config).map_err(OpenError::Records)?;
        if config.mode != Mode::Builtin {
            cni.start().await;
        }
        let mut handlers = BTreeMap::new();
        for (name, folder) in &config.handlers {
            let cni = Cni::of_handler(&config, folder.clone()).map_err(OpenError::Records)?;
            cni.start().await;
            handlers.insert(name.clone(), cni);
        }
        let network = Arc::new(Self {
            config,
            workers,
            builtin,
            cni,
            handlers,
            held,
            trouble: Mutex::new(None),
            starting: tokio::sync::Mutex::new(()),
        });
        let wanted = network.provider() == Provider::Builtin || network.builtin.in_use();
        if wanted && let Err(error) = network.start_builtin().await {
            tracing::error!(error = %chain(&error), "the built-in network is not ready");
            tokio::spawn(try_again(Arc::downgrade(&network)));
        }
        Ok(network)
    }

    /// Attaches a pod. A second call for the same pod starts anew; calls for one pod must not
    /// overlap. The work goes on to its end also if the caller stops waiting.
    pub async fn attach(&self, request: AttachRequest) -> Result<Attachment, AttachError> {
        let pod_id = request.pod_id.clone();
        if !valid_pod_id(&pod_id) {
            return Err(AttachError::PodId(pod_id));
        }
        let by_handler = self.handlers.get(&request.handler);
        let by_cni = by_handler.or_else(|| (self.provider() == Provider::Cni).then_some(&self.cni));
        if let Some(cni) = by_cni {
            let attached = self.attach_by_cni(cni.clone(), request).await;
            if attached.is_err() {
                drop(self.held.take(&pod_id));
            }
            return attached;
        }
        if !self.builtin.started() {
            self.start_builtin().await.map_err(AttachError::Start)?;
        }
        let attached = self.builtin.attach(request).await;
        attached.map_err(|source| AttachError::Builtin { pod_id, source })
    }

    async fn attach_by_cni(
        &self,
        cni: Cni,
        request: AttachRequest,
    ) -> Result<Attachment, AttachError> {
        let pod_id = request.pod_id.clone();
        let brought_up = self.bring_up_loopback(request.netns.clone()).await;
        if let Err(source) = brought_up {
            return Err(AttachError::Loopback { pod_id, source });
        }
        if let Err(source) = self.held.hold(&pod_id, &request.port_mappings) {
            return Err(AttachError::Port { pod_id, source });
        }
        let work = tokio::spawn(async move { cni.attach(&request).await });
        match work.await {
            Ok(Ok(attachment)) => Ok(attachment),
            Ok(Err(source)) => Err(AttachError::Cni { pod_id, source }),
            Err(source) => Err(AttachError::Aborted { pod_id, source }),
        }
    }

    /// Hands over the sockets that hold a pod's host ports. They are let go with the process that
    /// has them, so its shim is their place.
    #[must_use]
    pub fn take_sockets(&self, pod_id: &str) -> Vec<OwnedFd> {
        self.held.take(pod_id)
    }

    /// Holds the host ports of a pod whose shim does not, as from before a restart.
    ///
    /// # Errors
    /// Another program has taken one meanwhile.
    pub fn hold_ports(&self, pod_id: &str, attachment: &Attachment) -> Result<(), HoldError> {
        self.held.hold(pod_id, &attachment.port_mappings)
    }

    /// Takes a pod that runs as attached, also where the network's own record of it is lost. To be
    /// called for all of them before [`Network::gc`].
    ///
    /// # Errors
    /// What is known again can't be kept, or its ports not be offered.
    pub async fn restore(&self, pod_id: &str, attachment: &Attachment) -> Result<(), RestoreError> {
        match attachment.provider {
            Provider::Builtin => self.builtin.restore(pod_id, attachment).await,
            Provider::Cni => Ok(()),
        }
    }

    /// Detaches a pod by what attached it. Missing is success; works with the namespace gone.
    pub async fn detach(&self, request: DetachRequest) -> Result<(), DetachError> {
        let DetachRequest {
            pod_id,
            netns,
            attachment,
        } = request;
        if !valid_pod_id(&pod_id) {
            return Ok(());
        }
        let networks = attachment
            .map(|attachment| attachment.cni)
            .unwrap_or_default();
        if !networks.is_empty() || self.cni.has_record(&pod_id) {
            let (cni, id) = (self.cni.clone(), pod_id.clone());
            let work =
                tokio::spawn(async move { cni.detach(&id, netns.as_deref(), &networks).await });
            match work.await {
                Ok(Ok(())) => drop(self.held.take(&pod_id)),
                Ok(Err(source)) => return Err(DetachError::Cni { pod_id, source }),
                Err(source) => return Err(DetachError::Aborted { pod_id, source }),
            }
        }
        let detached = self.builtin.detach(&pod_id).await;
        detached.map_err(|source| DetachError::Builtin { pod_id, source })
    }

    /// Brings up the loopback interface of a namespace, as [`Network::attach`] does: for a pod that
    /// has no other.
    pub async fn bring_up_loopback(&self, netns: PathBuf) -> Result<(), LoopbackError> {
        let up = move |home: &mut Home| -> Result<(), LoopbackError> {
            let (_, mut inside) = home.route_socket_in(&netns)?;
            let mut batch = Batch::new();
            route::set_up(&mut batch, route::LOOPBACK);
            inside.transact(batch)?.check(|_, _| false)?;
            Ok(())
        };
        self.workers.run(up).await?
    }

    /// State of the network.
    #[must_use]
    pub fn status(&self) -> Status {
        let mode = self.provider();
        let trouble = match mode {
            Provider::Builtin => self.trouble().clone(),
            Provider::Cni => self.cni.trouble(),
        };
        match trouble {
            Some(message) => Status {
                ready: false,
                reason: "NetworkPluginNotReady".to_owned(),
                message,
                mode,
            },
            None => Status {
                ready: true,
                reason: String::new(),
                message: String::new(),
                mode,
            },
        }
    }

    /// Takes the node's pod ranges from the cluster; pods that are there keep their addresses. An
    /// empty list goes back to the configured ones.
    pub async fn set_pod_cidr(&self, cidrs: &[String]) -> Result<(), SetPodCidrError> {
        let ranges: Vec<IpNet> = cidrs
            .iter()
            .map(|cidr| cidr.parse())
            .collect::<Result<_, ParseIpNetError>>()?;
        for (at, second) in ranges.iter().enumerate() {
            let same = ranges[..at]
                .iter()
                .find(|first| first.is_ipv6() == second.is_ipv6());
            if let Some(first) = same {
                return Err(SetPodCidrError::SameFamily {
                    first: *first,
                    second: *second,
                });
            }
        }
        if ranges == self.pod_cidrs() {
            return Ok(());
        }
        let path = self.pod_cidr_file();
        keep(&path, &ranges).map_err(|source| SetPodCidrError::Keep { path, source })?;
        if self.provider() == Provider::Builtin || self.builtin.started() {
            self.start_builtin().await.map_err(SetPodCidrError::Start)?;
        }
        Ok(())
    }

    /// Removes what belongs to pods that are not known. No pod may be attached meanwhile.
    pub async fn gc(&self, known_pod_ids: &[String]) -> Result<(), GcError> {
        let swept = self.builtin.sweep(known_pod_ids).await;
        self.cni.sweep(known_pod_ids).await;
        let collect = async {
            let mut collected = self.cni.gc(known_pod_ids).await;
            for cni in self.handlers.values() {
                collected = collected.and(cni.gc(known_pod_ids).await);
            }
            collected
        };
        // Not in the background: what is attached meanwhile would be taken for a leftover.
        let collected = tokio::time::timeout(GC_TIME, collect).await;
        swept.map_err(GcError::Builtin)?;
        match collected {
            Ok(collected) => collected.map_err(GcError::Cni),
            Err(_) => Err(GcError::Time(GC_TIME.as_secs())),
        }
    }

    fn provider(&self) -> Provider {
        match self.config.mode {
            Mode::Builtin => Provider::Builtin,
            Mode::Cni => Provider::Cni,
            Mode::Auto if self.cni.seen() => Provider::Cni,
            Mode::Auto => Provider::Builtin,
        }
    }

    async fn start_builtin(&self) -> Result<(), StartError> {
        let _starting = self.starting.lock().await;
        let result = self.builtin.start(&self.pod_cidrs()).await;
        *self.trouble() = result.as_ref().err().map(|error| chain(error));
        result
    }

    fn trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pod_cidr_file(&self) -> PathBuf {
        self.config.state_dir.join("pod-cidr")
    }

    /// The ranges last told by the cluster.
    fn pod_cidrs(&self) -> Vec<IpNet> {
        let text = std::fs::read_to_string(self.pod_cidr_file()).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

/// What is in the way may go, and no pod comes that would try again.
async fn try_again(network: Weak<Network>) {
    loop {
        tokio::time::sleep(RETRY).await;
        let Some(network) = network.upgrade() else {
            return;
        };
        if network.builtin.started() || network.start_builtin().await.is_ok() {
            return;
        }
    }
}

fn keep(path: &Path, ranges: &[IpNet]) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let lines: String = ranges.iter().map(|range| format!("{range}\n")).collect();
    joey_failpoint::hit("network.ranges.create")?;
    std::fs::write(&temporary, lines)?;
    joey_failpoint::hit("network.ranges.rename")?;
    std::fs::rename(&temporary, path)
}

/// An error with all its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

fn valid_pod_id(id: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=200).contains(&id.len()) && !id.starts_with('.') && id.bytes().all(plain)
}
