//! Compiled profiles, kept.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::compile::{CompileError, Compiled, compile};
use crate::profile::{Profile, capability};

/// More kinds of containers than a node has; beyond, the cache starts anew.
const MAX_ENTRIES: usize = 128;

/// By profile and by those of the container's capabilities that the profile asks about. The
/// architecture is always this machine's.
type Key = ([u8; 32], BTreeSet<String>);

/// Compiles each profile once per set of capabilities.
#[derive(Debug, Default)]
pub struct Cache {
    entries: Mutex<HashMap<Key, Arc<Compiled>>>,
}

impl Cache {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The programs of a profile, compiled now or earlier; see [`compile`].
    ///
    /// # Errors
    /// As [`compile`]. Failures are not kept.
    pub fn get(&self, profile: &Profile, caps: &[String]) -> Result<Arc<Compiled>, CompileError> {
        let asked = |cap: &String| {
            let mut filters = profile
                .rules
                .iter()
                .flat_map(|r| [&r.includes, &r.excludes]);
            filters.any(|filter| filter.caps.contains(cap))
        };
        let caps: BTreeSet<String> = caps.iter().map(|c| capability(c)).filter(asked).collect();
        let key = (profile.digest, caps);
        if let Some(found) = self.entries.lock().get(&key) {
            return Ok(Arc::clone(found));
        }
        let caps: Vec<String> = key.1.iter().cloned().collect();
        let compiled = Arc::new(compile(profile, &caps)?);
        let mut entries = self.entries.lock();
        if entries.len() >= MAX_ENTRIES {
            entries.clear();
        }
        entries.insert(key, Arc::clone(&compiled));
        Ok(compiled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_capabilities_that_matter_make_another_program() {
        let cache = Cache::new();
        let profile = Profile::runtime_default();
        let get = |caps: &[&str]| {
            let caps: Vec<String> = caps.iter().map(|c| (*c).to_owned()).collect();
            cache.get(profile, &caps).unwrap()
        };
        let plain = get(&["CAP_NET_RAW"]);
        assert!(Arc::ptr_eq(&plain, &get(&["CAP_CHOWN", "CAP_KILL"])));
        assert!(!Arc::ptr_eq(&plain, &get(&["CAP_SYS_CHROOT"])));
        assert!(Arc::ptr_eq(
            &get(&["SYS_CHROOT"]),
            &get(&["CAP_SYS_CHROOT"])
        ));
    }
}
