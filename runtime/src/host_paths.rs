//! Paths of the host that containers mount.
//!
//! What they are on may be a server that has gone: whoever asks it for a path waits, often for
//! good. So a path is looked up on a thread that others do not need, its asker waits a bounded
//! time, and further askers of the same path wait for the same look-up.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use crate::error::{Error, Result};
use crate::runtime::Runtime;

/// How long a file system may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Each may occupy a thread for good; the daemon's other work needs some of those there are.
const MAX_LOOK_UPS: usize = 64;

/// For what never reaches the kernel: a path with a NUL in it.
const INVALID: i32 = rustix::io::Errno::INVAL.raw_os_error();

/// The path without symbolic links, or an errno.
type Found = std::result::Result<PathBuf, i32>;
type UnderWay = Arc<Mutex<HashMap<(Purpose, PathBuf), watch::Receiver<Option<Found>>>>>;

/// What a path is looked up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Purpose {
    Find,
    /// As a folder, where there is nothing.
    Make,
}

impl Runtime {
    /// Makes the folders among the sources of mounts that are not there.
    ///
    /// # Errors
    /// [`Error::File`] where one can't be made or its file system does not answer.
    pub async fn make_mount_sources(&self, paths: &[PathBuf]) -> Result<()> {
        let made = paths.iter().map(|path| self.host_paths.make(path));
        futures::future::try_join_all(made).await.map(drop)
    }
}

/// Looks up paths of the host.
#[derive(Debug)]
pub(crate) struct HostPaths {
    under_way: UnderWay,
    turns: Arc<Semaphore>,
}

impl Default for HostPaths {
    fn default() -> Self {
        Self {
            under_way: UnderWay::default(),
            turns: Arc::new(Semaphore::new(MAX_LOOK_UPS)),
        }
    }
}

impl HostPaths {
    /// The source of a mount, without symbolic links.
    pub(crate) async fn resolve(&self, path: &Path) -> Result<PathBuf> {
        let look = |path: &Path| std::fs::canonicalize(path);
        self.look_up(Purpose::Find, path, DEADLINE, look).await
    }

    /// The same, of a folder that is made where there is nothing.
    async fn make(&self, path: &Path) -> Result<PathBuf> {
        self.look_up(Purpose::Make, path, DEADLINE, find_or_make)
            .await
    }

    async fn look_up(
        &self,
        purpose: Purpose,
        path: &Path,
        deadline: Duration,
        look: impl FnOnce(&Path) -> io::Result<PathBuf> + Send + 'static,
    ) -> Result<PathBuf> {
        let action = match purpose {
            Purpose::Find => "find the mount source",
            Purpose::Make => "find or make the mount source",
        };
        let failed = |why| Error::file(action, path, why);
        let until = Instant::now() + deadline;
        let key = (purpose, path.to_owned());
        let known = self.under_way.lock().get(&key).cloned();
        let mut answer = match known {
            Some(answer) => answer,
            None => {
                let turn = timeout_at(until, Arc::clone(&self.turns).acquire_owned()).await;
                let turn = turn.map_err(|_| exhausted(path))?;
                self.begin(key, look, turn.map_err(|_| Error::Aborted)?)
            }
        };
        let answered = timeout_at(until, answer.wait_for(Option::is_some)).await;
        let found = match answered {
            Ok(Ok(found)) => found.clone(),
            Ok(Err(_)) => return Err(Error::Aborted),
            Err(_) => {
                let seconds = deadline.as_secs();
                let why = format!("its file system does not answer within {seconds} s");
                return Err(failed(io::Error::new(io::ErrorKind::TimedOut, why)));
            }
        };
        match found {
            Some(Ok(path)) => Ok(path),
            Some(Err(errno)) => Err(failed(io::Error::from_raw_os_error(errno))),
            None => Err(Error::Aborted),
        }
    }

    fn begin(
        &self,
        key: (Purpose, PathBuf),
        look: impl FnOnce(&Path) -> io::Result<PathBuf> + Send + 'static,
        turn: OwnedSemaphorePermit,
    ) -> watch::Receiver<Option<Found>> {
        let mut under_way = self.under_way.lock();
        if let Some(answer) = under_way.get(&key) {
            return answer.clone();
        }
        let (sender, answer) = watch::channel(None);
        under_way.insert(key.clone(), answer.clone());
        let all = Arc::clone(&self.under_way);
        tokio::task::spawn_blocking(move || {
            let found = look(&key.1).map_err(|e| e.raw_os_error().unwrap_or(INVALID));
            all.lock().remove(&key);
            drop(turn);
            sender.send_replace(Some(found));
        });
        answer
    }
}

fn find_or_make(path: &Path) -> io::Result<PathBuf> {
    match std::fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            joey_failpoint::hit("volume.create")?;
            std::fs::create_dir_all(path)?;
            std::fs::canonicalize(path)
        }
        found => found,
    }
}

fn exhausted(path: &Path) -> Error {
    let path = path.display();
    let what = format!(
        "look-ups for the mount source {path}: {MAX_LOOK_UPS} others are not answered and are"
    );
    Error::Exhausted { what }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_path_is_found_or_named() {
        let paths = HostPaths::default();
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        std::fs::write(&real, "").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(
            paths.resolve(&link).await.unwrap(),
            std::fs::canonicalize(&real).unwrap()
        );
        let missing = paths.resolve(Path::new("/no/such")).await.unwrap_err();
        assert!(missing.to_string().contains("/no/such"), "{missing}");
        paths.resolve(Path::new("/\0")).await.unwrap_err();
        assert!(paths.under_way.lock().is_empty());
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_made_and_nothing_is_replaced() {
        let paths = HostPaths::default();
        let folder = tempfile::tempdir().unwrap();
        let folder = std::fs::canonicalize(folder.path()).unwrap();
        let (new, file) = (folder.join("a/b"), folder.join("file"));
        std::fs::write(&file, "kept").unwrap();
        assert_eq!(paths.make(&new).await.unwrap(), new);
        assert!(new.is_dir());
        assert_eq!(paths.make(&file).await.unwrap(), file);
        assert_eq!(std::fs::read(&file).unwrap(), b"kept");
        let beneath = file.join("c");
        let refused = paths.make(&beneath).await.unwrap_err().chain();
        assert!(refused.contains("file/c"), "{refused}");
    }

    #[tokio::test]
    async fn a_path_that_hangs_takes_one_thread_and_hanging_paths_are_bounded() {
        let paths = HostPaths::default();
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let hang = |gate: &Arc<Mutex<std::sync::mpsc::Receiver<()>>>| {
            let gate = Arc::clone(gate);
            move |path: &Path| {
                gate.lock().recv().unwrap_err();
                Ok(path.to_owned())
            }
        };
        let dead = Path::new("/dead");
        for _ in 0..3 {
            let late = paths.look_up(Purpose::Find, dead, SHORT, hang(&gate)).await;
            let text = late.unwrap_err().chain();
            assert!(
                text.contains("/dead") && text.contains("does not answer"),
                "{text}"
            );
        }
        assert_eq!(paths.under_way.lock().len(), 1);
        for number in 1..MAX_LOOK_UPS {
            let key = (Purpose::Make, PathBuf::from(format!("/dead/{number}")));
            let turn = Arc::clone(&paths.turns).try_acquire_owned().unwrap();
            paths.begin(key, hang(&gate), turn);
        }
        let refused = paths
            .look_up(Purpose::Make, Path::new("/etc"), SHORT, find_or_make)
            .await
            .unwrap_err();
        assert!(refused.to_string().contains("/etc"), "{refused}");
        drop(open);
        while !paths.under_way.lock().is_empty() {
            tokio::time::sleep(SHORT).await;
        }
        paths.resolve(Path::new("/etc")).await.unwrap();
    }
}
