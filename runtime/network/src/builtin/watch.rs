//! Rules that others removed (`nft flush ruleset`, a firewall's reload) come back.

use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::AbortHandle;

use super::{Inner, rules};
use crate::netlink::{NetlinkError, Socket, nft};

/// Others may remove more in the next moment.
const SETTLE: Duration = Duration::from_millis(100);
/// At most this often, so that two who undo each other's work don't take the whole machine.
const PAUSE: Duration = Duration::from_millis(900);

/// A running watch; it ends with this value.
#[derive(Debug)]
pub(super) struct Watcher(AbortHandle);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts to watch in the network namespace of the calling thread.
pub(super) fn start(inner: &Arc<Inner>) -> Result<Watcher, NetlinkError> {
    let socket = Socket::netfilter_monitor(nft::MONITOR_GROUPS)?;
    // SAFETY: the socket owns its descriptor, keeps the same one for life and closes it only when
    // dropped; neither this module nor the socket's methods swap it out of the AsyncFd.
    let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    let socket = registered.map_err(|error| {
        let error = std::io::Error::from(error);
        let source = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        NetlinkError::Socket {
            action: "poll",
            source,
        }
    })?;
    let own = inner.workers.ports();
    let task = tokio::spawn(watch(Arc::downgrade(inner), socket, own));
    Ok(Watcher(task.abort_handle()))
}

async fn watch(inner: Weak<Inner>, mut socket: AsyncFd<Socket>, own: Arc<[u32]>) {
    loop {
        match socket.readable_mut().await {
            Ok(mut ready) => {
                if !removed(ready.get_inner_mut(), &own) {
                    ready.clear_ready();
                    continue;
                }
            }
            Err(error) => {
                tracing::error!(%error, "nftables rules are no longer watched");
                return;
            }
        }
        tokio::time::sleep(SETTLE).await;
        loop {
            removed(socket.get_mut(), &own);
            let Some(inner) = inner.upgrade() else { return };
            tracing::warn!(
                table = rules::TABLE,
                "nftables rules were removed by others: restoring"
            );
            let workers = inner.workers.clone();
            match workers.run(move |home| inner.rebuild_rules(home)).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => tracing::error!(%error, "nftables rules can't be restored"),
                Err(_) => return,
            }
            tokio::time::sleep(PAUSE).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Reads all that was heard: true if others removed something of ours, or if that is not known
/// because more happened than the socket holds.
fn removed(socket: &mut Socket, own: &[u32]) -> bool {
    let mut removed = false;
    loop {
        let heard = socket.heard(|kind, port, payload| {
            let table = nft::removed_from(kind, payload);
            removed |= table == Some(rules::TABLE) && !own.contains(&port);
        });
        match heard {
            Ok(Some(())) => {}
            Ok(None) => return removed,
            Err(error) if error.errno() == Some(Errno::NOBUFS) => removed = true,
            Err(error) => {
                tracing::warn!(%error, "nftables notifications can't be read");
                return true;
            }
        }
    }
}
