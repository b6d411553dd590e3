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

/// How long a file system may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Each may occupy a thread for good; the daemon's other work needs some of those there are.
const MAX_LOOK_UPS: usize = 64;

/// For what never reaches the kernel: a path with a NUL in it.
const INVALID: i32 = rustix::io::Errno::INVAL.raw_os_error();

/// The path without symbolic links, or an errno.
type Found = std::result::Result<PathBuf, i32>;
type UnderWay = Arc<Mutex<HashMap<PathBuf, watch::Receiver<Option<Found>>>>>;

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
        self.resolve_by(path, DEADLINE, |path| std::fs::canonicalize(path))
            .await
    }

    async fn resolve_by(
        &self,
        path: &Path,
        deadline: Duration,
        look: impl FnOnce(&Path) -> io::Result<PathBuf> + Send + 'static,
    ) -> Result<PathBuf> {
        let failed = |why| Error::file("find the mount source", path, why);
        let until = Instant::now() + deadline;
        let known = self.under_way.lock().get(path).cloned();
        let mut answer = match known {
            Some(answer) => answer,
            None => {
                let turn = timeout_at(until, Arc::clone(&self.turns).acquire_owned()).await;
                let turn = turn.map_err(|_| exhausted(path))?;
                self.begin(path, look, turn.map_err(|_| Error::Aborted)?)
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
        path: &Path,
        look: impl FnOnce(&Path) -> io::Result<PathBuf> + Send + 'static,
        turn: OwnedSemaphorePermit,
    ) -> watch::Receiver<Option<Found>> {
        let mut under_way = self.under_way.lock();
        if let Some(answer) = under_way.get(path) {
            return answer.clone();
        }
        let (sender, answer) = watch::channel(None);
        under_way.insert(path.to_owned(), answer.clone());
        let (all, path) = (Arc::clone(&self.under_way), path.to_owned());
        tokio::task::spawn_blocking(move || {
            let found = look(&path).map_err(|e| e.raw_os_error().unwrap_or(INVALID));
            all.lock().remove(&path);
            drop(turn);
            sender.send_replace(Some(found));
        });
        answer
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
            let late = paths.resolve_by(dead, SHORT, hang(&gate)).await;
            let text = late.unwrap_err().chain();
            assert!(
                text.contains("/dead") && text.contains("does not answer"),
                "{text}"
            );
        }
        assert_eq!(paths.under_way.lock().len(), 1);
        for number in 1..MAX_LOOK_UPS {
            let path = PathBuf::from(format!("/dead/{number}"));
            let turn = Arc::clone(&paths.turns).try_acquire_owned().unwrap();
            paths.begin(&path, hang(&gate), turn);
        }
        let refused = paths
            .resolve_by(Path::new("/etc"), SHORT, |path| std::fs::canonicalize(path))
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
