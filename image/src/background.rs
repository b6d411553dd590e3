//! Heavy work that stays behind the node's other work.

use std::io;
use std::thread;

use rustix::process::{getpriority_process, setpriority_process};
use tokio::sync::oneshot;

/// Unpacking keeps all processors busy; by this nice value it gives way to calls, shims and execs
/// and, where nothing else is at work, loses nothing. A daemon that is nicer stays so.
const NICE: i32 = 10;

/// Runs blocking work on a thread of its own that other threads go before. It goes on when the
/// caller goes away.
///
/// # Errors
/// When there is no thread to be had, or the work ended by a bug.
pub(crate) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = oneshot::channel();
    thread::Builder::new()
        .name("joeyd-unpack".to_owned())
        .spawn(move || {
            // Linux knows priorities by thread, and this one's is not taken back: it ends here.
            let behind =
                getpriority_process(None).and_then(|own| setpriority_process(None, own.max(NICE)));
            if let Err(error) = behind {
                tracing::debug!(%error, "unpacking does not stay behind other work");
            }
            // A caller who has gone away does not ask for the result.
            sender.send(work()).ok();
        })?;
    receiver.await.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_stays_behind_its_caller() {
        let nice = || getpriority_process(None).unwrap();
        let mine = nice();
        let behind = run(nice).await.unwrap();
        assert_eq!(behind, mine.max(NICE));
        assert_eq!(nice(), mine);
    }

    #[tokio::test]
    async fn work_that_panics_is_an_error() {
        run(|| panic!("a bug")).await.unwrap_err();
    }
}
