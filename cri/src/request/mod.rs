//! CRI requests, checked and mapped to the runtime's model.

mod container;
mod devices;
mod identity;
mod mounts;
mod pod;
mod resources;
mod security;
mod signal;

pub(crate) use container::{container, image_name};
pub(crate) use pod::pod;
pub(crate) use resources::{oom_score_adj, resources};
pub(crate) use signal::from_name as signal_from_name;

use std::collections::{BTreeMap, HashMap};

use joey_proto::cri;
use joey_runtime::model::IdMapping;

use crate::status::{Failure, Result, invalid};

/// A field that has to be there.
pub(crate) fn required<T>(field: Option<T>, name: &str) -> Result<T> {
    field.ok_or_else(|| invalid(format!("{name} is missing")))
}

/// A text that must not be empty.
pub(crate) fn non_empty(text: &str, name: &str) -> Result<()> {
    if text.is_empty() {
        Err(invalid(format!("{name} is empty")))
    } else {
        Ok(())
    }
}

/// A text the kernel will take as a C string.
fn no_nul(text: &[u8], name: &str) -> Result<()> {
    if text.contains(&0) {
        Err(invalid(format!("{name} holds a NUL")))
    } else {
        Ok(())
    }
}

/// An enum's number that this version of CRI does not have.
fn unknown_value(name: &str, value: i32) -> Failure {
    invalid(format!("{name} has the unknown value {value}"))
}

pub(crate) fn sorted(map: HashMap<String, String>) -> BTreeMap<String, String> {
    map.into_iter().collect()
}

fn id_mappings(mappings: &[cri::IdMapping]) -> Vec<IdMapping> {
    mappings
        .iter()
        .map(|mapping| IdMapping {
            host_id: mapping.host_id,
            container_id: mapping.container_id,
            size: mapping.length,
        })
        .collect()
}
