//! From a container's configuration to what its shim is told: the OCI spec's part, the mounts, and
//! the final stage of its process.

mod capabilities;
mod devices;
mod environment;
mod mounts;
mod process;
mod seccomp;
mod signals;
mod spec;

pub(crate) use capabilities::capabilities;
pub(crate) use devices::{cgroup_resources, check_devices};
pub(crate) use environment::environment;
pub(crate) use mounts::binds;
pub(crate) use process::{check_apparmor, exec_process, init_process};
pub(crate) use seccomp::{local_profile, seccomp};
pub(crate) use signals::signal_number;
pub(crate) use spec::spec;
