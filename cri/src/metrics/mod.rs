//! Pod metrics under cAdvisor's names, as dashboards and the kubelet's `/metrics/cadvisor` know
//! them.
//!
//! CRI carries values as whole numbers, so times are whole seconds.

mod container;
mod descriptors;
mod disk;
mod pod;
mod process;
mod samples;

pub(crate) use container::container_metrics;
pub(crate) use descriptors::descriptors;
pub(crate) use pod::pod_metrics;
