//! Exit records: what a shim writes before it tells anyone of an end.

use std::path::{Path, PathBuf};

use joey_proto::shim;
use serde::Deserialize;
use thiserror::Error;

/// An exit record that can't be read.
#[derive(Debug, Error)]
pub enum ExitRecordError {
    /// The file can't be read.
    #[error("read {path}")]
    Read {
        /// The record.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no record.
    #[error("parse {path}")]
    Parse {
        /// The record.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

#[derive(Debug, Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Record {
    code: i32,
    signal: i32,
    finished_at: i64,
    oom_kills_before: u64,
    oom_kills: u64,
}

/// The exit record of a container in its pod's run folder; None where there is none.
///
/// # Errors
/// The file is there and can't be read.
pub fn read_exit_record(
    run_folder: &Path,
    container_id: &str,
) -> Result<Option<shim::Exit>, ExitRecordError> {
    let path = run_folder
        .join("exits")
        .join(format!("{container_id}.json"));
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ExitRecordError::Read { path, source }),
    };
    let record: Record =
        serde_json::from_slice(&bytes).map_err(|source| ExitRecordError::Parse { path, source })?;
    Ok(Some(shim::Exit {
        container_id: container_id.to_owned(),
        code: record.code,
        signal: record.signal,
        finished_at: record.finished_at,
        oom_kills_before: record.oom_kills_before,
        oom_kills: record.oom_kills,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_is_none_and_garbage_is_named() {
        let folder = std::env::temp_dir().join(format!("joey-exits-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("exits")).unwrap();
        assert!(read_exit_record(&folder, "a").unwrap().is_none());
        std::fs::write(folder.join("exits/a.json"), "{").unwrap();
        assert!(
            read_exit_record(&folder, "a")
                .unwrap_err()
                .to_string()
                .contains("a.json")
        );
        std::fs::write(folder.join("exits/a.json"), r#"{"version":1,"code":3}"#).unwrap();
        assert_eq!(read_exit_record(&folder, "a").unwrap().unwrap().code, 3);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
