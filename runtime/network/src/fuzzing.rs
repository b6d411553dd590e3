//! What fuzzers call: configurations and answers of CNI plugins, and records on a disk.

use serde_json::Value;

use crate::builtin::lease::Lease;
use crate::cni::conf::ConfList;
use crate::cni::record::Record;
use crate::cni::result;

/// A configuration list, or a plugin's answer.
pub fn cni(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    if let Ok(list) = ConfList::from_json(&value) {
        let again = ConfList::from_json(&list.to_json());
        assert_eq!(again.as_ref(), Ok(&list));
        drop(result::addresses(&value, list.version, "eth0"));
    }
    if let Ok(version) = "1.1.0".parse() {
        drop(result::addresses(&value, version, "eth0"));
    }
}

/// A lease, or the record of a pod's CNI networks, as found on a disk.
pub fn record(data: &[u8]) {
    if let Ok(lease) = serde_json::from_slice::<Lease>(data) {
        let again = serde_json::to_vec(&lease).map(|text| serde_json::from_slice(&text).ok());
        assert_eq!(again.ok().flatten(), Some(lease));
    }
    if let Ok(record) = serde_json::from_slice::<Record>(data) {
        // Not compared: the last digit of a foreign floating-point number may change.
        let text = serde_json::to_vec(&record);
        assert!(text.is_ok_and(|text| serde_json::from_slice::<Record>(&text).is_ok()));
    }
}
