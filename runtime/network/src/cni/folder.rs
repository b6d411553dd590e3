//! Watching the folder of configurations.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;

use super::Inner;

/// Writers take several steps.
const SETTLE: Duration = Duration::from_millis(50);
/// Until a folder that can't be watched is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// A running watch; it ends with this value.
#[derive(Debug)]
pub(super) struct Watch(AbortHandle);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Refreshes what is known whenever the folder changes; also one that is made later, or anew.
pub(super) fn watch(inner: &Arc<Inner>) -> Watch {
    let (folder, inner) = (inner.folder.clone(), Arc::downgrade(inner));
    let task = tokio::spawn(async move {
        loop {
            match open(&folder) {
                Ok(events) => {
                    if follow(&inner, events).await.is_none() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(folder = %folder.display(), %error, "CNI folder is not watched");
                }
            }
            tokio::time::sleep(RETRY).await;
            if !refresh(&inner).await {
                return;
            }
        }
    });
    Watch(task.abort_handle())
}

fn open(folder: &Path) -> Result<AsyncFd<OwnedFd>, std::io::Error> {
    std::fs::create_dir_all(folder)?;
    let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let changes = WatchFlags::CREATE
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVED_FROM
        | WatchFlags::DELETE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR;
    inotify::add_watch(&fd, folder, changes)?;
    // SAFETY: the descriptor is owned by the AsyncFd from here on, is not swapped out of it, and is
    // closed only with it.
    let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    fd.map_err(std::io::Error::from)
}

/// Returns when the folder itself is gone; None when there is nobody left to tell.
async fn follow(inner: &Weak<Inner>, events: AsyncFd<OwnedFd>) -> Option<()> {
    // What changed before the watch was there.
    refresh(inner).await.then_some(())?;
    loop {
        let gone = match events.readable().await {
            Ok(mut ready) => {
                let gone = drain(events.get_ref());
                ready.clear_ready();
                gone
            }
            Err(_) => true,
        };
        if gone {
            return Some(());
        }
        tokio::time::sleep(SETTLE).await;
        refresh(inner).await.then_some(())?;
    }
}

async fn refresh(inner: &Weak<Inner>) -> bool {
    match inner.upgrade() {
        Some(inner) => {
            inner.refresh().await;
            true
        }
        None => false,
    }
}

/// Reads all events; true if the folder itself is gone.
fn drain(fd: &OwnedFd) -> bool {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(fd, &mut buffer);
    loop {
        match reader.next() {
            Ok(event) => {
                let end = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::IGNORED;
                if event.events().intersects(end) {
                    return true;
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return false,
            Err(_) => return true,
        }
    }
}
