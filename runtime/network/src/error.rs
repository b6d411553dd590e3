//! Why operations of [`crate::Network`] fail.

use std::path::PathBuf;

use crate::builtin::lease::LeaseError;
use crate::builtin::{BuiltinAttachError, BuiltinDetachError, StartError, SweepError};
use crate::cni::record::RecordError;
use crate::cni::{CniAttachError, CniDetachError, CniGcError};
use crate::held::HoldError;
use crate::ipnet::{IpNet, ParseIpNetError};
use crate::netlink::NetlinkError;
use crate::worker::{VisitError, WorkerError};

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
    /// The records of CNI can't be kept.
    #[error("keep the records of CNI")]
    Records(#[source] RecordError),
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
    /// The pod's loopback interface can't be brought up.
    #[error("bring up the loopback interface of pod {pod_id}")]
    Loopback {
        /// The pod.
        pod_id: String,
        /// The reason.
        #[source]
        source: LoopbackError,
    },
    /// A host port of a pod that CNI attaches is not free.
    #[error("attach pod {pod_id}")]
    Port {
        /// The pod.
        pod_id: String,
        /// The reason.
        #[source]
        source: HoldError,
    },
    /// CNI refused.
    #[error("attach pod {pod_id} by CNI")]
    Cni {
        /// The pod.
        pod_id: String,
        /// The reason.
        #[source]
        source: CniAttachError,
    },
    /// The work ended without a result.
    #[error("attach pod {pod_id}: the work was given up")]
    Aborted {
        /// The pod.
        pod_id: String,
        /// The reason.
        #[source]
        source: tokio::task::JoinError,
    },
}

/// Why a loopback interface can't be brought up.
#[derive(Debug, thiserror::Error)]
pub enum LoopbackError {
    /// No thread did it.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The namespace can't be visited.
    #[error(transparent)]
    Visit(#[from] VisitError),
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
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
    /// CNI could not let go.
    #[error("detach pod {pod_id} by CNI")]
    Cni {
        /// The pod.
        pod_id: String,
        /// The reason.
        #[source]
        source: CniDetachError,
    },
    /// The work ended without a result.
    #[error("detach pod {pod_id}: the work was given up")]
    Aborted {
        /// The pod.
        pod_id: String,
        /// The reason.
        #[source]
        source: tokio::task::JoinError,
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
    /// Those of CNI.
    #[error("remove leftovers of CNI")]
    Cni(#[source] CniGcError),
    /// Plugins took too long.
    #[error("CNI plugins did not collect their leftovers within {0} s")]
    Time(u64),
}

/// What the kernel said; an error that no system call gave counts as one of input or output.
pub(crate) fn errno(error: std::io::Error) -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO)
}
