//! One connection to a shim: calls by id, events, and the ends of execs.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use joey_proto::shim::{
    self, Reply, Request, event::Event as EventKind, reply::Result as ReplyKind,
    request::Call as CallKind,
};
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::CallError;
use crate::frames::{self, Reader};

/// Events that may wait for their reader.
const MAX_EVENTS: usize = 256;
/// Ends of execs whose reply has not been read; more are another daemon's.
const MAX_EARLY_EXITS: usize = 256;

/// What a shim tells by itself.
#[derive(Debug, Clone)]
pub enum ShimEvent {
    /// A container ended; its exit record is written.
    Exit(shim::Exit),
    /// An exec ended.
    ExecExit(shim::ExecExit),
    /// A slow attached client was dropped.
    AttachDropped(shim::AttachDropped),
    /// PID 1 of the shared PID namespace ended.
    InitExit(shim::InitExit),
    /// The connection ended; nothing follows.
    Disconnected,
}

/// A shim's events, in order, from the first one of the connection.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<ShimEvent>);

impl Events {
    /// The next event; None after [`ShimEvent::Disconnected`].
    pub async fn recv(&mut self) -> Option<ShimEvent> {
        self.0.recv().await
    }
}

type Answer = (Reply, Option<OwnedFd>);

#[derive(Debug, Default)]
struct Waiting {
    gone: bool,
    calls: HashMap<u64, oneshot::Sender<Answer>>,
    execs: HashMap<u64, watch::Sender<Option<i32>>>,
}

/// A connection, shared by calls and execs.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: UnixStream,
    sending: tokio::sync::Mutex<()>,
    next_id: AtomicU64,
    waiting: Mutex<Waiting>,
    events: Mutex<Option<mpsc::Receiver<ShimEvent>>>,
}

impl Connection {
    /// Takes a connected socket and starts to read it.
    pub(crate) fn new(socket: UnixStream) -> Arc<Self> {
        let (sender, receiver) = mpsc::channel(MAX_EVENTS);
        let connection = Arc::new(Self {
            socket,
            sending: tokio::sync::Mutex::default(),
            next_id: AtomicU64::new(1),
            waiting: Mutex::default(),
            events: Mutex::new(Some(receiver)),
        });
        tokio::spawn(Arc::clone(&connection).read_all(sender));
        connection
    }

    /// The events; a second caller gets none.
    pub(crate) fn events(&self) -> Events {
        Events(
            self.events
                .lock()
                .take()
                .unwrap_or_else(|| mpsc::channel(1).1),
        )
    }

    /// Sends a request and waits for its reply, at most `limit`.
    pub(crate) async fn call(
        &self,
        name: &'static str,
        call: CallKind,
        fds: Vec<OwnedFd>,
        limit: Duration,
    ) -> Result<(ReplyKind, Option<OwnedFd>), CallError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if waiting.gone {
                return Err(CallError::Gone);
            }
            waiting.calls.insert(id, sender);
        }
        let _forget = Forget {
            connection: self,
            id,
        };
        let request = Request {
            id,
            call: Some(call),
        };
        let exchange = async {
            let sending = self.sending.lock().await;
            frames::send(&self.socket, &request, &fds)
                .await
                .map_err(|_| CallError::Gone)?;
            drop((sending, fds));
            receiver.await.map_err(|_| CallError::Gone)
        };
        let (reply, fd) = tokio::time::timeout(limit, exchange)
            .await
            .map_err(|_| CallError::Late { call: name, limit })??;
        match reply.result {
            Some(ReplyKind::Error(error)) => Err(CallError::Failed {
                errno: error.errno,
                message: error.message,
            }),
            Some(result) => Ok((result, fd)),
            None => Err(CallError::Confused { call: name }),
        }
    }

    /// The end of an exec, told or yet to be.
    pub(crate) fn exec_exit(&self, exec_id: u64) -> watch::Receiver<Option<i32>> {
        let mut waiting = self.waiting.lock();
        if waiting.gone {
            return watch::channel(None).1;
        }
        waiting
            .execs
            .entry(exec_id)
            .or_insert_with(|| watch::Sender::new(None))
            .subscribe()
    }

    pub(crate) fn forget_exec(&self, exec_id: u64) {
        self.waiting.lock().execs.remove(&exec_id);
    }

    async fn read_all(self: Arc<Self>, events: mpsc::Sender<ShimEvent>) {
        let mut reader = Reader::default();
        loop {
            match reader.next(&self.socket).await {
                Ok(Some(reply)) => self.take(reply, &mut reader, &events).await,
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "a shim's connection is broken");
                    break;
                }
            }
        }
        *self.waiting.lock() = Waiting {
            gone: true,
            ..Waiting::default()
        };
        drop(events.send(ShimEvent::Disconnected).await);
    }

    async fn take(&self, reply: Reply, reader: &mut Reader, events: &mpsc::Sender<ShimEvent>) {
        let carries_fd = match &reply.result {
            Some(ReplyKind::StartPod(reply)) => reply.has_network,
            Some(ReplyKind::Namespaces(reply)) => reply.has_network,
            Some(ReplyKind::Exec(reply)) => reply.has_master,
            _ => false,
        };
        let fd = if carries_fd { reader.take_fd() } else { None };
        if reply.id != 0 {
            if let Some(sender) = self.waiting.lock().calls.remove(&reply.id) {
                // The caller may have given up meanwhile.
                drop(sender.send((reply, fd)));
            }
            return;
        }
        let Some(ReplyKind::Event(event)) = reply.result else {
            return;
        };
        let event = match event.event {
            Some(EventKind::Exit(exit)) => ShimEvent::Exit(exit),
            Some(EventKind::ExecExit(exit)) => {
                self.exec_exited(&exit);
                return;
            }
            Some(EventKind::AttachDropped(dropped)) => ShimEvent::AttachDropped(dropped),
            Some(EventKind::InitExit(exit)) => ShimEvent::InitExit(exit),
            None => return,
        };
        drop(events.send(event).await);
    }

    fn exec_exited(&self, exit: &shim::ExecExit) {
        let mut waiting = self.waiting.lock();
        if waiting.execs.len() >= MAX_EARLY_EXITS && !waiting.execs.contains_key(&exit.exec_id) {
            return;
        }
        let sender = waiting
            .execs
            .entry(exit.exec_id)
            .or_insert_with(|| watch::Sender::new(None));
        sender.send_replace(Some(exit.code));
    }
}

struct Forget<'a> {
    connection: &'a Connection,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.connection.waiting.lock().calls.remove(&self.id);
    }
}
