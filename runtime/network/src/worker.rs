//! Threads for work that blocks: netlink, and visits to other network namespaces.
//!
//! A thread that could not come back from a pod's namespace would do the next pod's work in the
//! wrong place, so it ends the job with an error and takes no more jobs.

use std::fs::File;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::{mpsc, oneshot};

use crate::netlink::{NetlinkError, Socket};

const QUEUE: usize = 64;

/// Why blocking work could not be done.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A thread could not be started.
    #[error("start a network thread")]
    Spawn(#[source] std::io::Error),
    /// All threads have ended.
    #[error("no network thread is left")]
    Gone,
}

/// Why a network namespace could not be visited.
#[derive(Debug, thiserror::Error)]
pub enum VisitError {
    /// Its file can't be opened.
    #[error("open network namespace {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// It can't be entered.
    #[error("enter network namespace {path}")]
    Enter {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: Errno,
    },
    /// The thread could not return; it ends.
    #[error("return from network namespace {path}")]
    Return {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: Errno,
    },
    /// A socket could not be made inside.
    #[error("open a socket in network namespace {path}")]
    Socket {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: NetlinkError,
    },
}

/// What a thread has at hand: its home namespace and sockets in it.
#[derive(Debug)]
pub(crate) struct Home {
    namespace: File,
    pub(crate) route: Socket,
    pub(crate) netfilter: Socket,
    lost: bool,
}

impl Home {
    fn open() -> Result<Self, std::io::Error> {
        let socket = |result: Result<Socket, NetlinkError>| result.map_err(std::io::Error::other);
        Ok(Self {
            namespace: File::open("/proc/thread-self/ns/net")?,
            route: socket(Socket::route())?,
            netfilter: socket(Socket::netfilter())?,
            lost: false,
        })
    }

    /// Opens a route socket inside the namespace pinned at `path`.
    pub(crate) fn route_socket_in(&mut self, path: &Path) -> Result<(File, Socket), VisitError> {
        let path = path.to_owned();
        let target = match File::open(&path) {
            Ok(file) => file,
            Err(source) => return Err(VisitError::Open { path, source }),
        };
        let kind = Some(LinkNameSpaceType::Network);
        if let Err(source) = move_into_link_name_space(target.as_fd(), kind) {
            return Err(VisitError::Enter { path, source });
        }
        let socket = Socket::route();
        if let Err(source) = move_into_link_name_space(self.namespace.as_fd(), kind) {
            self.lost = true;
            return Err(VisitError::Return { path, source });
        }
        match socket {
            Ok(socket) => Ok((target, socket)),
            Err(source) => Err(VisitError::Socket { path, source }),
        }
    }
}

type Job = Box<dyn FnOnce(&mut Home) + Send>;

/// A few threads of one network namespace.
#[derive(Debug, Clone)]
pub(crate) struct Workers {
    jobs: mpsc::Sender<Job>,
    ports: Arc<[u32]>,
}

impl Workers {
    /// Starts `count` threads in the caller's network namespace.
    pub(crate) fn start(count: usize) -> Result<Self, WorkerError> {
        let (jobs, queue) = mpsc::channel::<Job>(QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        let mut ports = Vec::new();
        for number in 0..count {
            let queue = Arc::clone(&queue);
            let mut home = Home::open().map_err(WorkerError::Spawn)?;
            ports.push(home.netfilter.port());
            std::thread::Builder::new()
                .name(format!("network-{number}"))
                .stack_size(256 * 1024)
                .spawn(move || {
                    while !home.lost {
                        let job = {
                            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                            queue.blocking_recv()
                        };
                        let Some(job) = job else { break };
                        // Its caller is told by the answer that never comes.
                        if catch_unwind(AssertUnwindSafe(|| job(&mut home))).is_err() {
                            tracing::error!("a network job panicked");
                        }
                    }
                })
                .map_err(WorkerError::Spawn)?;
        }
        Ok(Self {
            jobs,
            ports: ports.into(),
        })
    }

    /// Netlink ports of the threads' netfilter sockets: who sends our own changes.
    pub(crate) fn ports(&self) -> Arc<[u32]> {
        Arc::clone(&self.ports)
    }

    /// Runs `job` on a thread. It is run to its end also if the caller stops waiting.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Home) -> T + Send + 'static,
    ) -> Result<T, WorkerError> {
        let (answer, result) = oneshot::channel();
        let job: Job = Box::new(move |home| {
            // The receiver is gone if the caller stopped waiting: the work counts all the same.
            drop(answer.send(job(home)));
        });
        self.jobs.send(job).await.map_err(|_| WorkerError::Gone)?;
        result.await.map_err(|_| WorkerError::Gone)
    }
}
