//! One daemon for one root folder: a locked file that names its holder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thiserror::Error;

/// A daemon that was killed just now holds its folder until the kernel has ended it.
const DYING_TIME: Duration = Duration::from_secs(2);
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// The root folder is not to be had.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another daemon has it.
    #[error("{root} is in use by joeyd with pid {holder}")]
    Held {
        /// The folder.
        root: PathBuf,
        /// What the lock file says.
        holder: String,
    },
    /// The lock file can't be used.
    #[error("lock {path}")]
    File {
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Held until dropped; the kernel frees it too when the process ends in any way.
#[derive(Debug)]
pub struct RootLock {
    _file: File,
}

impl RootLock {
    /// Takes the root folder, which must exist.
    ///
    /// # Errors
    /// When another process holds it, or the file can't be made.
    pub fn take(root: &Path) -> Result<Self, LockError> {
        let path = root.join("joeyd.lock");
        let failed = |source| LockError::File {
            path: path.clone(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        let deadline = Instant::now() + DYING_TIME;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(RETRY_INTERVAL);
                }
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    file.read_to_string(&mut holder).map_err(failed)?;
                    return Err(LockError::Held {
                        root: root.into(),
                        holder: holder.trim().into(),
                    });
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_daemon_is_refused_and_told_who_has_it() {
        let root = std::env::temp_dir().join(format!("joeyd-lock-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        let first = RootLock::take(&root).unwrap();
        let error = RootLock::take(&root).unwrap_err().to_string();
        assert!(
            error.ends_with(&format!("pid {}", std::process::id())),
            "{error}"
        );
        drop(first);
        drop(RootLock::take(&root).unwrap());
        std::fs::remove_dir_all(&root).unwrap();
    }
}
