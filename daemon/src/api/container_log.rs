//! The folders of the containers' logs: one per pod, named by its uid.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use joey_runtime::model::Owner;

use super::State;

/// Hexadecimal digits of a folder's name.
const UID_DIGITS: usize = 32;

/// A folder's name.
pub fn new_uid() -> String {
    format!("{:0UID_DIGITS$x}", rand::random::<u128>())
}

/// Removes a pod's folder where it is one of `logs`.
pub async fn remove(logs: &Path, folder: PathBuf) {
    if folder.parent() == Some(logs) {
        let removed = tokio::task::spawn_blocking(move || remove_now(&folder));
        // Only a panic; it was told.
        drop(removed.await);
    }
}

/// Removes what a killed daemon left of removed pods.
pub async fn sweep(state: &Arc<State>) {
    let state = Arc::clone(state);
    let swept = tokio::task::spawn_blocking(move || {
        // Looked at first: a pod is there before its folder is.
        let folders = folders(&state.logs);
        let pods = state.runtime.pods(Owner::Joey);
        let used: HashSet<PathBuf> = pods
            .iter()
            .map(|pod| pod.record().config.log_directory.clone())
            .collect();
        for folder in folders.iter().filter(|folder| !used.contains(*folder)) {
            remove_now(folder);
        }
    });
    drop(swept.await);
}

/// Those that are named as Joey names them: nothing else is Joey's to remove.
fn folders(logs: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(logs).into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            name.len() == UID_DIGITS && name.iter().all(u8::is_ascii_hexdigit)
        })
        .map(|entry| entry.path())
        .collect()
}

fn remove_now(folder: &Path) {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(folder = %folder.display(), %error, "a log stays behind");
        }
        _ => {}
    }
}
