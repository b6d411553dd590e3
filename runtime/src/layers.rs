//! How much containers' writable layers hold.
//!
//! To know it all their files are visited, which takes minutes for some. So nobody waits for it: a
//! question is answered with the last count and its time, and where that is old the layer waits
//! for its turn with the one walker of the node.

use std::collections::{HashMap, VecDeque};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::ids;

/// A layer is counted at most this often.
const INTERVAL: Duration = Duration::from_secs(10);
/// A layer rests at least this many times as long as its count took.
const REST: u32 = 10;

/// What a writable layer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerUsage {
    /// Where it is.
    pub path: PathBuf,
    /// Blocks in use, bytes.
    pub used_bytes: u64,
    /// Files and folders.
    pub inodes_used: u64,
    /// When it was counted, ns since the epoch.
    pub timestamp_ns: i64,
}

/// The last counts, by container.
#[derive(Debug, Default, Clone)]
pub(crate) struct LayerCounts(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    counts: HashMap<String, Counted>,
    waiting: VecDeque<(String, PathBuf)>,
    walking: bool,
}

#[derive(Debug, Default)]
struct Counted {
    usage: Option<LayerUsage>,
    /// When a new count is due; None: at the next question.
    due: Option<Instant>,
    waits: bool,
}

impl LayerCounts {
    /// Counts a new container's layer, which is empty.
    pub(crate) fn begin(&self, container_id: &str, folder: &Path) {
        let counted = Counted {
            usage: count(folder),
            ..Counted::default()
        };
        let mut state = self.0.lock();
        state.counts.insert(container_id.to_owned(), counted);
    }

    pub(crate) fn forget(&self, container_id: &str) {
        self.0.lock().counts.remove(container_id);
    }

    /// The last count; none yet for a container from before a restart. A new one is begun in the
    /// background where it is due.
    pub(crate) fn usage(&self, container_id: &str, folder: PathBuf) -> Option<LayerUsage> {
        let mut state = self.0.lock();
        let counted = state.counts.entry(container_id.to_owned()).or_default();
        let usage = counted.usage.clone();
        if counted.waits || counted.due.is_some_and(|due| Instant::now() < due) {
            return usage;
        }
        counted.waits = true;
        state.waiting.push_back((container_id.to_owned(), folder));
        if !std::mem::replace(&mut state.walking, true) {
            let counts = self.clone();
            tokio::task::spawn_blocking(move || counts.walk());
        }
        usage
    }

    /// Counts the layers that wait, one after the other.
    fn walk(&self) {
        while let Some((id, folder)) = self.next() {
            let begun = Instant::now();
            let usage = count(&folder);
            let rest = INTERVAL.max(begun.elapsed() * REST);
            // Gone where the container is removed meanwhile.
            if let Some(counted) = self.0.lock().counts.get_mut(&id) {
                *counted = Counted {
                    usage,
                    due: Some(Instant::now() + rest),
                    waits: false,
                };
            }
        }
    }

    fn next(&self) -> Option<(String, PathBuf)> {
        let mut state = self.0.lock();
        let next = state.waiting.pop_front();
        state.walking = next.is_some();
        next
    }
}

/// None when the folder can't be read. Files that vanish meanwhile are passed over.
fn count(folder: &Path) -> Option<LayerUsage> {
    let mut usage = LayerUsage {
        path: folder.to_owned(),
        used_bytes: 0,
        inodes_used: 0,
        timestamp_ns: ids::now(),
    };
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            if usage.inodes_used == 0 {
                return None;
            }
            continue;
        };
        usage.inodes_used += 1;
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            usage.used_bytes += metadata.blocks() * 512;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                usage.inodes_used += 1;
            }
        }
    }
    Some(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn counted(counts: &LayerCounts, id: &str, folder: &Path) -> LayerUsage {
        for _ in 0..500 {
            if let Some(usage) = counts.usage(id, folder.to_owned()) {
                return usage;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never counted");
    }

    #[tokio::test]
    async fn a_count_is_made_in_the_background_and_says_of_when_it_is() {
        let layer = tempfile::tempdir().unwrap();
        std::fs::write(layer.path().join("file"), [1; 8192]).unwrap();
        let counts = LayerCounts::default();
        assert_eq!(counts.usage("a", layer.path().to_owned()), None);
        let first = counted(&counts, "a", layer.path()).await;
        assert_eq!((first.used_bytes, first.inodes_used), (8192, 2));
        std::fs::write(layer.path().join("second"), [1; 8192]).unwrap();
        assert_eq!(
            counts.usage("a", layer.path().to_owned()),
            Some(first.clone()),
            "of when it was counted"
        );
        let make_due = || {
            let mut state = counts.0.lock();
            state.counts.get_mut("a").unwrap().due = None;
        };
        make_due();
        for _ in 0..500 {
            let now = counted(&counts, "a", layer.path()).await;
            if now.inodes_used == 3 {
                assert!(now.timestamp_ns > first.timestamp_ns);
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never counted again");
    }

    #[tokio::test]
    async fn a_layer_waits_once_and_there_is_one_walker() {
        let layer = tempfile::tempdir().unwrap();
        let counts = LayerCounts::default();
        counts.begin("new", layer.path());
        let usage = counts.usage("new", layer.path().to_owned()).unwrap();
        assert_eq!(usage.inodes_used, 1);
        counted(&counts, "old", layer.path()).await;
        while counts.0.lock().walking {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }

        // As if a long walk were under way.
        counts.0.lock().walking = true;
        for id in ["a", "a", "b", "a", "old"] {
            counts.usage(id, layer.path().to_owned());
        }
        let waiting: Vec<String> = {
            let state = counts.0.lock();
            state.waiting.iter().map(|(id, _)| id.clone()).collect()
        };
        assert_eq!(waiting, ["a", "b"]);
        counts.forget("a");
        counts.walk();
        let state = counts.0.lock();
        assert!(!state.walking && !state.counts.contains_key("a"));
        assert!(state.counts["b"].usage.is_some());
    }
}
