//! Exit records: how a container ended, for a daemon that was not there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use joey_proto::shim::Exit;
use serde::Serialize;

/// The format's version.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Record<'a> {
    version: u32,
    container_id: &'a str,
    pid: i32,
    code: i32,
    signal: i32,
    /// CLOCK_REALTIME, ns.
    finished_at: i64,
    oom_kills_before: u64,
    oom_kills: u64,
}

/// The record's path.
pub fn path(run_dir: &Path, container_id: &str) -> PathBuf {
    run_dir.join("exits").join(format!("{container_id}.json"))
}

/// Writes the record by tmp and rename. Not synced: a container ends with the host's power anyway.
pub fn write(run_dir: &Path, pid: i32, exit: &Exit) -> io::Result<()> {
    let record = Record {
        version: VERSION,
        container_id: &exit.container_id,
        pid,
        code: exit.code,
        signal: exit.signal,
        finished_at: exit.finished_at,
        oom_kills_before: exit.oom_kills_before,
        oom_kills: exit.oom_kills,
    };
    let path = path(run_dir, &exit.container_id);
    let tmp = path.with_extension("tmp");
    joey_failpoint::hit("exit.create")?;
    let written = fs::write(&tmp, serde_json::to_vec(&record)?)
        .and_then(|()| joey_failpoint::hit("exit.rename"))
        .and_then(|()| fs::rename(&tmp, &path));
    if written.is_err() {
        drop(fs::remove_file(&tmp));
    }
    written
}
