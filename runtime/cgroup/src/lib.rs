//! Control groups: the one place that writes them.
//!
//! Covers cgroup v1, hybrid (v1 controllers beside an empty v2 tree) and v2, with the cgroupfs and
//! the systemd driver. [`Cgroups::detect`] finds what this host has; [`Cgroups::create`] makes the
//! group of a container; a [`Group`] is a handle that can be written to a record and used again
//! after a restart.
//!
//! Processes are not moved here: a started process enters the folders of [`Group::dirs`] itself,
//! because writing another process's id to `cgroup.procs` waits for an RCU grace period.

mod apply;
mod bpf;
mod cgroups;
mod devices;
mod files;
mod group;
mod keeper;
mod kill;
mod layout;
mod memory;
mod path;
mod plan;
mod read_back;
mod remove;
mod resources;
mod same;
mod shrink;
mod stats;
mod systemd;
mod units;
mod v1;
mod v2;

pub use apply::UpdateError;
pub use cgroups::{Cgroups, CreateError, DetectError, Driver, DriverChoice};
pub use files::FileError;
pub use group::{Group, Restored};
pub use kill::{FreezeError, KillError};
pub use layout::Version;
pub use memory::MemoryAccount;
pub use path::NameError;
pub use plan::PlanError;
pub use remove::RemoveError;
pub use resources::{
    BlkioWeight, DeviceKind, DeviceRule, Resources, Throttle, ThrottleKind, default_devices,
};
pub use stats::{
    CpuStats, HugetlbStats, IoStats, MemoryStats, PidsStats, Pressure, PressureTimes, Psi, Stats,
    StatsReader, Usage,
};
pub use systemd::SystemdError;
