//! The runtime's records and measurements, mapped to CRI's answers.

mod container;
mod image;
mod info;
mod pod;
mod resources;
mod usage;

#[cfg(test)]
pub(crate) use container::mount;
pub(crate) use container::{ImageNames, container, container_state, container_status};
pub(crate) use image::image;
pub(crate) use info::{container_info, image_info, pod_info, runtime_info};
pub(crate) use pod::{pod, pod_attributes, pod_state, pod_status};
pub(crate) use resources::resources;
pub(crate) use usage::{container_attributes, container_stats, pod_stats};

use std::collections::{BTreeMap, HashMap};

fn unsorted(map: &BTreeMap<String, String>) -> HashMap<String, String> {
    map.iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
