//! CNI: networks by plugins, as the specification (up to 1.1) wants them run.

pub(crate) mod capabilities;
pub(crate) mod conf;
pub(crate) mod exec;
mod folder;
mod pod;
pub(crate) mod record;
pub(crate) mod result;
mod state;
mod version;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::{CniFolder, NetworkConfig};
use exec::Executor;
pub(crate) use pod::{CniAttachError, CniDetachError, CniGcError};
use record::{RecordError, Records};
use state::State;

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    limit: usize,
    executor: Executor,
    records: Records,
    /// Written when a configuration is first seen; None: that is of no interest.
    marker: Option<PathBuf>,
    seen: AtomicBool,
    state: Mutex<State>,
    refreshing: tokio::sync::Mutex<()>,
}

/// CNI on a node.
#[derive(Debug, Clone)]
pub(crate) struct Cni(Arc<Inner>);

impl Cni {
    /// CNI by the node's own folder of configurations.
    pub(crate) fn open(config: &NetworkConfig) -> Result<Self, RecordError> {
        let folder = CniFolder {
            conf_dir: config.cni_conf_dir.clone(),
            max_conf: config.cni_max_conf,
        };
        Self::open_in(config, folder, Some(config.state_dir.join("cni-seen")))
    }

    /// CNI by the folder of one runtime handler. What is made for pods is on record in the same
    /// place: any of them takes it down.
    pub(crate) fn of_handler(
        config: &NetworkConfig,
        folder: CniFolder,
    ) -> Result<Self, RecordError> {
        Self::open_in(config, folder, None)
    }

    fn open_in(
        config: &NetworkConfig,
        folder: CniFolder,
        marker: Option<PathBuf>,
    ) -> Result<Self, RecordError> {
        Ok(Self(Arc::new(Inner {
            folder: folder.conf_dir,
            limit: folder.max_conf,
            executor: Executor {
                folders: config.cni_bin_dirs.clone(),
                timeout: Duration::from_secs(config.cni_timeout_seconds.max(1)),
            },
            records: Records::open(config.state_dir.join("cni"))?,
            seen: AtomicBool::new(marker.as_ref().is_some_and(|marker| marker.exists())),
            marker,
            state: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
        })))
    }

    /// True once a configuration was seen, also before a restart.
    pub(crate) fn seen(&self) -> bool {
        self.0.seen.load(Ordering::Acquire)
    }

    /// True if CNI made something for the pod.
    pub(crate) fn has_record(&self, pod_id: &str) -> bool {
        self.0.records.read(pod_id).is_some()
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
