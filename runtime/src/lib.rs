//! Pods and containers: life cycle, OCI spec, resources, events and recorded state.
//!
//! Knows nothing of CRI. Every change of an object runs in a task of its own and under a key, so
//! that a caller that gives up cancels nothing and a retry joins. State comes from the records and
//! the shims' exit records; it is never asked of a shim at a read.
#![forbid(unsafe_code)]

mod apparmor;
mod cdi;
mod config;
mod container;
pub mod error;
mod events;
mod features;
#[cfg(fuzzing)]
pub mod fuzzing;
mod hooks;
mod host_paths;
mod ids;
mod layers;
pub mod model;
mod objects;
mod oci;
mod operation;
mod pod;
mod record;
mod recorded;
mod recover;
mod resources;
mod runtime;
mod selinux;
mod stats;
mod wire;

pub use config::{Config, HandlerConfig};
pub use container::{AttachSession, Detachment, ExecConfig, ExecOutput, ExecSession};
pub use error::{Error, Result};
pub use events::{Event, EventKind};
pub use features::Features;
pub use layers::LayerUsage;
pub use objects::{Container, Pod};
pub use recorded::Recorded;
pub use resources::{LiveUpdate, Overlay};
pub use runtime::{Handler, Runtime, RuntimeInfo};
pub use stats::{ContainerStats, ContainerUsage, PodStats};
