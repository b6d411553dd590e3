//! Exit records: how containers ended while no daemon was there.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The newest format known.
const VERSION: u32 = 1;

/// How a container ended, as its shim wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ExitRecord {
    /// The format.
    pub version: u32,
    /// The container.
    pub container_id: String,
    /// Its init, on the host.
    pub pid: i32,
    /// The exit code; 128 + signal when signalled.
    pub code: i32,
    /// The signal that ended it, 0 when none did.
    pub signal: i32,
    /// CLOCK_REALTIME, ns.
    pub finished_at: i64,
    /// OOM kills in its cgroup before it started.
    pub oom_kills_before: u64,
    /// OOM kills in its cgroup at its end.
    pub oom_kills: u64,
}

/// A record exists and cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ExitRecordError {
    /// The file cannot be read.
    #[error("read the exit record {}", path.display())]
    Read {
        /// The record.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file does not hold a record.
    #[error("parse the exit record {}", path.display())]
    Parse {
        /// The record.
        path: PathBuf,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A newer shim wrote it.
    #[error("the exit record {} has the unknown version {version}", path.display())]
    Version {
        /// The record.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
}

/// Reads a container's exit record; `None` while it has none.
///
/// # Errors
/// When there is a record that cannot be read or understood.
pub fn read_exit_record(
    run_dir: &Path,
    container_id: &str,
) -> Result<Option<ExitRecord>, ExitRecordError> {
    let path = run_dir.join("exits").join(format!("{container_id}.json"));
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ExitRecordError::Read { path, source }),
    };
    let record: ExitRecord = match serde_json::from_slice(&bytes) {
        Ok(record) => record,
        Err(source) => return Err(ExitRecordError::Parse { path, source }),
    };
    if record.version > VERSION {
        return Err(ExitRecordError::Version {
            path,
            version: record.version,
        });
    }
    Ok(Some(record))
}
