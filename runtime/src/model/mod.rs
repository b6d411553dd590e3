//! What a pod and a container are: their wanted configuration and their recorded state.
//!
//! These types are persisted in records, so fields are only added, with a default.

mod container;
mod end;
mod pod;

pub use container::{
    Capabilities, ContainerConfig, ContainerRecord, ContainerState, Device, GroupPolicy,
    ImageIdentity, Launch, LogRotation, Mount, MountSource, PidMode, Propagation, ResolvedUser,
    Security, Started, User,
};
pub use end::{Actor, Cause, Exit, OomGroup, OomKill, StopRequest, Victim};
pub use pod::{
    DnsConfig, IdMapping, NamespaceMode, Owner, PodConfig, PodRecord, PodSecurity, PodState,
    PortMapping, Process, Protocol, SecurityProfile, SelinuxOptions, UserNamespace,
};

/// The version written into new records.
pub const RECORD_VERSION: u32 = 1;
