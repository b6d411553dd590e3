//! What fuzzers call: records and CDI specs as found on a disk.

use crate::cdi;
use crate::model::{ContainerRecord, PodRecord};

/// The record of a pod or a container.
pub fn record(data: &[u8]) {
    if let Ok(record) = serde_json::from_slice::<PodRecord>(data) {
        let text = serde_json::to_vec(&record);
        assert!(text.is_ok_and(|text| serde_json::from_slice::<PodRecord>(&text).is_ok()));
    }
    if let Ok(record) = serde_json::from_slice::<ContainerRecord>(data) {
        let text = serde_json::to_vec(&record);
        assert!(text.is_ok_and(|text| serde_json::from_slice::<ContainerRecord>(&text).is_ok()));
    }
}

/// A CDI spec, JSON or YAML.
pub fn cdi(data: &[u8]) {
    for yaml in [false, true] {
        drop(cdi::parse(data, yaml));
    }
}
