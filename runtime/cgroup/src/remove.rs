//! Removal of a group and of everything beneath it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::files::FileError;
use crate::group::Group;
use crate::kill::child_groups;
use crate::systemd;

/// Pauses between attempts: a killed process leaves its group only once it is reaped.
const PAUSES_MS: [u64; 12] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 1000];

/// A group could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// Its folder.
    #[error(transparent)]
    File(#[from] FileError),
    /// The worker was lost: the process is ending.
    #[error("the worker that removes cgroups is gone")]
    Worker,
}

impl Group {
    /// Removes the group and those beneath it, in every hierarchy. Processes are not killed; while
    /// there are some the kernel refuses, and it is tried for three seconds. Missing is fine.
    ///
    /// # Errors
    /// The folder that can't be removed.
    pub async fn remove(&self) -> Result<(), RemoveError> {
        self.release();
        if let Some(unit) = &self.unit {
            systemd::stop(unit).await;
        }
        let mut pauses = PAUSES_MS.into_iter();
        loop {
            let result = self.blocking(remove_now).await;
            let error = match result.map_err(|_| RemoveError::Worker)? {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let busy = error.source.kind() == io::ErrorKind::ResourceBusy;
            match pauses.next().filter(|_| busy) {
                Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                None => return Err(error.into()),
            }
        }
    }
}

/// One attempt in every hierarchy; the first failure is reported once all were tried.
pub(crate) fn remove_now(group: &Group) -> Result<(), FileError> {
    let mut failure = Ok(());
    for dir in group.dirs() {
        if let Err(e) = remove_tree(&dir)
            && failure.is_ok()
        {
            failure = Err(FileError::new("remove", &dir, e));
        }
    }
    failure
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    joey_failpoint::hit("cgroup.remove")?;
    match rustix::fs::rmdir(dir) {
        Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::NODEV) => return Ok(()),
        Err(rustix::io::Errno::BUSY) => {}
        Err(e) => return Err(e.into()),
    }
    for child in child_groups(dir) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
