//! The network of a node: which kind pods get, and the way to it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::builtin::lease::LeaseError;
use crate::builtin::{Builtin, BuiltinAttachError, BuiltinDetachError, StartError, SweepError};
use crate::config::{Mode, NetworkConfig};
use crate::ipnet::{IpNet, ParseIpNetError};
use crate::types::{AttachRequest, Attachment, CheckRequest, DetachRequest, Provider, Status};
use crate::worker::{WorkerError, Workers};

const WORKERS: usize = 2;

/// Why the network could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A folder can't be made.
    #[error("make folder {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// The leases can't be read.
    #[error("read the leases of the built-in network")]
    Leases(#[source] LeaseError),
    /// No threads.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

/// Why a pod could not be attached. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The id can't name a lease.
    #[error(
        "pod id {0:?} has characters other than letters, digits, '.', '_' and '-', or is too long"
    )]
    PodId(String),
    /// The built-in network can't be started.
    #[error("start the built-in network")]
    Start(#[source] StartError),
    /// The built-in network refused.
    #[error("attach pod {pod_id} to the built-in network")]
    Builtin {
        /// The pod.
        pod_id: String,
        /// The reason.
        #[source]
        source: BuiltinAttachError,
    },
}

/// Why a pod could not be detached; it can be tried again.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// The built-in network could not let go.
    #[error("detach pod {pod_id} from the built-in network")]
    Builtin {
        /// The pod.
        pod_id: String,
        /// The reason.
        #[source]
        source: BuiltinDetachError,
    },
}

/// What is wrong with a pod's attachment.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The built-in network has no lease or interface for it.
    #[error("pod {pod_id} has no lease or no interface in the built-in network")]
    Missing {
        /// The pod.
        pod_id: String,
    },
    /// It could not be looked at.
    #[error("look at the interface of pod {pod_id}")]
    Worker {
        /// The pod.
        pod_id: String,
        /// The reason.
        #[source]
        source: WorkerError,
    },
}

/// Why the pods' ranges could not be set.
#[derive(Debug, thiserror::Error)]
pub enum SetPodCidrError {
    /// A text is no range.
    #[error(transparent)]
    Parse(#[from] ParseIpNetError),
    /// More than one range of a family.
    #[error("pods have at most one range of each address family; {first} and {second} were given")]
    SameFamily {
        /// One of them.
        first: IpNet,
        /// The other.
        second: IpNet,
    },
    /// They can't be written down.
    #[error("write the pods' ranges to {path}")]
    Keep {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// The built-in network can't use them.
    #[error("use the pods' ranges in the built-in network")]
    Start(#[source] StartError),
}

/// Why leftovers could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// Those of the built-in network.
    #[error("remove leftovers of the built-in network")]
    Builtin(#[source] SweepError),
}

/// The network of a node.
#[derive(Debug)]
pub struct Network {
    config: NetworkConfig,
    builtin: Builtin,
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
        let builtin = Builtin::open(&config, workers).map_err(OpenError::Leases)?;
        let network = Arc::new(Self {
            config,
            builtin,
            trouble: Mutex::new(None),
            starting: tokio::sync::Mutex::new(()),
        });
        if (network.provider() == Provider::Builtin || network.builtin.in_use())
            && let Err(error) = network.start_builtin().await
        {
            tracing::error!(error = %chain(&error), "the built-in network is not ready");
        }
        Ok(network)
    }

    /// Attaches a pod. A second call for the same pod starts anew; calls for one pod must not
    /// overlap.
    pub async fn attach(&self, request: AttachRequest) -> Result<Attachment, AttachError> {
        if !valid_pod_id(&request.pod_id) {
            return Err(AttachError::PodId(request.pod_id));
        }
        if !self.builtin.started() {
            self.start_builtin().await.map_err(AttachError::Start)?;
        }
        let pod_id = request.pod_id.clone();
        let attached = self.builtin.attach(request).await;
        attached.map_err(|source| AttachError::Builtin { pod_id, source })
    }

    /// Detaches a pod by what attached it. Missing is success; works with the namespace gone.
    pub async fn detach(&self, request: DetachRequest) -> Result<(), DetachError> {
        let pod_id = request.pod_id;
        let detached = self.builtin.detach(&pod_id).await;
        detached.map_err(|source| DetachError::Builtin { pod_id, source })
    }

    /// Looks whether the pod's attachment is as it was made.
    pub async fn check(&self, request: CheckRequest) -> Result<(), CheckError> {
        let pod_id = request.pod_id;
        match self.builtin.check(&pod_id).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(CheckError::Missing { pod_id }),
            Err(source) => Err(CheckError::Worker { pod_id, source }),
        }
    }

    /// State of the network.
    #[must_use]
    pub fn status(&self) -> Status {
        let mode = self.provider();
        match self.trouble().clone() {
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

    /// Removes what belongs to pods that are not known.
    pub async fn gc(&self, known_pod_ids: &[String]) -> Result<(), GcError> {
        self.builtin
            .sweep(known_pod_ids)
            .await
            .map_err(GcError::Builtin)
    }

    fn provider(&self) -> Provider {
        match self.config.mode {
            Mode::Auto | Mode::Builtin => Provider::Builtin,
            Mode::Cni => Provider::Cni,
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

fn keep(path: &Path, ranges: &[IpNet]) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let lines: String = ranges.iter().map(|range| format!("{range}\n")).collect();
    std::fs::write(&temporary, lines)?;
    std::fs::rename(&temporary, path)
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
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
