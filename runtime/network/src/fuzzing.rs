//! What fuzzers call: configurations and answers of CNI plugins.

use serde_json::Value;

use crate::cni::conf::ConfList;
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
