//! What CNI made for a pod, on disk before the first plugin runs.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::types::CniAttachment;

const VERSION: u32 = 1;
const MAX_SIZE: u64 = 16 * 1024 * 1024;

/// A pod's CNI networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    pub(crate) pod_id: String,
    pub(crate) netns: PathBuf,
    pub(crate) networks: Vec<CniAttachment>,
}

impl Record {
    pub(crate) fn new(pod_id: &str, netns: &Path) -> Self {
        let (pod_id, netns) = (pod_id.to_owned(), netns.to_owned());
        Self {
            version: VERSION,
            pod_id,
            netns,
            networks: Vec::new(),
        }
    }
}

/// Why a record could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("{action} CNI record {path}")]
pub struct RecordError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// The folder with all records.
#[derive(Debug)]
pub(crate) struct Records {
    folder: PathBuf,
}

impl Records {
    pub(crate) fn open(folder: PathBuf) -> Result<Self, RecordError> {
        if let Err(source) = fs::create_dir_all(&folder) {
            return Err(RecordError {
                action: "make the folder of",
                path: folder,
                source,
            });
        }
        // What a killed daemon left of a write.
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                drop(fs::remove_file(entry.path()));
            }
        }
        Ok(Self { folder })
    }

    pub(crate) fn write(&self, record: &Record) -> Result<(), RecordError> {
        let path = self.path(&record.pod_id);
        let temporary = self.folder.join(format!(".{}", record.pod_id));
        let write = || {
            joey_failpoint::hit("cni.record.create")?;
            fs::write(&temporary, serde_json::to_vec(record)?)?;
            joey_failpoint::hit("cni.record.rename")?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|source| {
            drop(fs::remove_file(&temporary));
            RecordError {
                action: "write",
                path: path.clone(),
                source,
            }
        })
    }

    /// None if there is none; one that can't be read is set aside under `bad-…` and reported.
    pub(crate) fn read(&self, pod_id: &str) -> Option<Record> {
        let path = self.path(pod_id);
        let size = fs::metadata(&path).ok()?.len();
        let read = || -> Result<Record, std::io::Error> {
            if size > MAX_SIZE {
                return Err(std::io::Error::other(format!("{size} bytes are too many")));
            }
            let record: Record = serde_json::from_slice(&fs::read(&path)?)?;
            if record.version != VERSION || record.pod_id != pod_id {
                return Err(std::io::Error::other(
                    "it is another version's or another pod's",
                ));
            }
            Ok(record)
        };
        match read() {
            Ok(record) => Some(record),
            Err(error) => {
                let aside = self.folder.join(format!("bad-{pod_id}.json.quarantined"));
                let moved = joey_failpoint::hit("cni.record.quarantine")
                    .and_then(|()| fs::rename(&path, &aside));
                tracing::error!(
                    record = %path.display(), %error, aside = %aside.display(), ?moved,
                    "bad CNI record set aside: what its plugins made stays behind"
                );
                None
            }
        }
    }

    /// Missing is success.
    pub(crate) fn remove(&self, pod_id: &str) -> Result<(), RecordError> {
        let path = self.path(pod_id);
        match joey_failpoint::hit("cni.record.remove").and_then(|()| fs::remove_file(&path)) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(RecordError {
                action: "remove",
                path,
                source,
            }),
            _ => Ok(()),
        }
    }

    /// Ids of all pods with a record.
    pub(crate) fn pods(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return Vec::new();
        };
        let id = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            let id = name.strip_suffix(".json")?;
            (!id.starts_with('.')).then(|| id.to_owned())
        };
        entries.flatten().filter_map(id).collect()
    }

    fn path(&self, pod_id: &str) -> PathBuf {
        self.folder.join(format!("{pod_id}.json"))
    }
}
