//! Records: one JSON file per object, replaced atomically.
//!
//! CRI records are not fsynced one by one: a pod dies with the power anyway and its start path
//! should not wait for the disk. A background task flushes the file system within a second.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// The longest a written record may wait for its flush.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// Larger files are no records of ours.
const MAX_RECORD_BYTES: u64 = 16 << 20;

/// A record that could not be read and was set aside.
#[derive(Debug)]
pub(crate) struct BadRecord {
    /// The object's id, by the file's name.
    pub id: String,
    /// Where it is now.
    pub moved_to: PathBuf,
    /// Why.
    pub why: String,
}

/// The records of one kind of object.
#[derive(Debug)]
pub(crate) struct RecordStore {
    folder: PathBuf,
    quarantine: PathBuf,
    dirty: AtomicBool,
}

impl RecordStore {
    /// Opens `root/kind`, made if absent.
    pub(crate) fn open(root: &Path, kind: &str) -> Result<Self> {
        let folder = root.join(kind);
        let quarantine = root.join("quarantine");
        for path in [&folder, &quarantine] {
            std::fs::create_dir_all(path).map_err(|e| Error::file("create", path, e))?;
            // Records hold environments, and so secrets.
            std::fs::set_permissions(path, Permissions::from_mode(0o700))
                .map_err(|e| Error::file("set the mode of", path, e))?;
        }
        Ok(Self {
            folder,
            quarantine,
            dirty: AtomicBool::new(false),
        })
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    /// Writes a record; the old one stays whole until the new one is.
    pub(crate) fn save<T: Serialize>(&self, id: &str, record: &T) -> Result<()> {
        let path = self.path(id);
        let temporary = self.folder.join(format!(".{id}.tmp"));
        let bytes = serde_json::to_vec(record)
            .map_err(|e| Error::step(format!("encode record {}", path.display()), e))?;
        let written = joey_failpoint::hit("record.create")
            .and_then(|()| {
                let mut options = std::fs::File::options();
                options.write(true).create(true).truncate(true).mode(0o600);
                options.open(&temporary)
            })
            .and_then(|mut file| file.write_all(&bytes))
            .and_then(|()| joey_failpoint::hit("record.rename"))
            .and_then(|()| std::fs::rename(&temporary, &path));
        if let Err(error) = written {
            drop(std::fs::remove_file(&temporary));
            return Err(Error::file("write", path, error));
        }
        self.dirty.store(true, Ordering::Release);
        Ok(())
    }

    /// Deletes a record; an absent one is fine.
    pub(crate) fn remove(&self, id: &str) -> Result<()> {
        let path = self.path(id);
        match joey_failpoint::hit("record.remove").and_then(|()| std::fs::remove_file(&path)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::file("remove", path, error))
            }
            _ => Ok(()),
        }
    }

    /// Reads every record; unreadable ones are moved to the quarantine folder.
    pub(crate) fn load<T: DeserializeOwned>(&self) -> Result<(Vec<T>, Vec<BadRecord>)> {
        let (mut records, mut bad) = (Vec::new(), Vec::new());
        let entries =
            std::fs::read_dir(&self.folder).map_err(|e| Error::file("read", &self.folder, e))?;
        for entry in entries {
            let path = entry
                .map_err(|e| Error::file("read", &self.folder, e))?
                .path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let Some(id) = name.strip_suffix(".json") else {
                drop(std::fs::remove_file(&path)); // a write that was cut off
                continue;
            };
            match read_record(&path) {
                Ok(record) => records.push(record),
                Err(why) => bad.push(self.set_aside(&path, id, why)),
            }
        }
        Ok((records, bad))
    }

    /// Moves a bad record away; where that fails it stays, and is named again at the next start.
    fn set_aside(&self, path: &Path, id: &str, why: String) -> BadRecord {
        let kind = self
            .folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let quarantined = self.quarantine.join(format!("{kind}-{id}.json"));
        let moved = std::fs::rename(path, &quarantined);
        BadRecord {
            id: id.to_owned(),
            moved_to: if moved.is_ok() {
                quarantined
            } else {
                path.to_owned()
            },
            why,
        }
    }

    /// Flushes what was written since the last flush, for as long as it is polled.
    pub(crate) async fn flush_forever(&self) {
        loop {
            tokio::time::sleep(FLUSH_INTERVAL).await;
            if !self.dirty.swap(false, Ordering::AcqRel) {
                continue;
            }
            let folder = self.folder.clone();
            let flushed = tokio::task::spawn_blocking(move || {
                std::fs::File::open(&folder)
                    .and_then(|file| rustix::fs::syncfs(&file).map_err(Into::into))
            })
            .await;
            if let Ok(Err(error)) = flushed {
                tracing::warn!(folder = %self.folder.display(), %error, "records could not be flushed");
            }
        }
    }
}

fn read_record<T: DeserializeOwned>(path: &Path) -> std::result::Result<T, String> {
    let size = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if size > MAX_RECORD_BYTES {
        return Err(format!("{size} bytes are more than a record has"));
    }
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    serde_json::from_slice(&bytes).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_record_is_set_aside_and_named() {
        let root = tempfile::tempdir().unwrap();
        let store = RecordStore::open(root.path(), "pods").unwrap();
        store.save("a", &vec![1, 2]).unwrap();
        std::fs::write(root.path().join("pods/b.json"), "[1,").unwrap();
        std::fs::write(root.path().join("pods/.c.tmp"), "[1").unwrap();

        let (records, bad) = store.load::<Vec<i32>>().unwrap();
        assert_eq!(records, [[1, 2]]);
        assert_eq!(bad.len(), 1);
        assert_eq!(bad[0].id, "b");
        assert!(bad[0].moved_to.exists());
        assert!(!root.path().join("pods/b.json").exists());
        assert!(!root.path().join("pods/.c.tmp").exists());
    }

    #[test]
    fn removing_twice_is_fine() {
        let root = tempfile::tempdir().unwrap();
        let store = RecordStore::open(root.path(), "pods").unwrap();
        store.save("a", &1).unwrap();
        store.remove("a").unwrap();
        store.remove("a").unwrap();
        assert!(store.load::<i32>().unwrap().0.is_empty());
    }
}
