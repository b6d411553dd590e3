//! One connection to a shim: frames with descriptors, requests and replies paired by id.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use joey_proto::shim::{Reply, Request, reply, request::Call};
use prost::Message;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::event::ShimEvent;

const QUEUED_REQUESTS: usize = 64;
const QUEUED_EVENTS: usize = 1024;
/// The largest frame taken from a shim, bytes.
const MAX_FRAME: usize = 8 << 20;
const READ_SIZE: usize = 16 << 10;

/// An answer and the descriptors that came with it.
pub(crate) type Answer = (reply::Result, Vec<OwnedFd>);

type Pending = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>>;

struct Frame {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// A connection; dropping it closes it.
#[derive(Debug)]
pub(crate) struct Link {
    frames: mpsc::Sender<Frame>,
    pending: Pending,
    events: broadcast::Sender<ShimEvent>,
    next_id: AtomicU64,
    reader: tokio::task::JoinHandle<()>,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frame")
            .field("len", &self.bytes.len())
            .field("fds", &self.fds)
            .finish()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Link {
    pub(crate) fn new(stream: UnixStream) -> Self {
        let stream = Arc::new(stream);
        let (frames, queue) = mpsc::channel(QUEUED_REQUESTS);
        let (events, _) = broadcast::channel(QUEUED_EVENTS);
        let pending: Pending = Arc::new(Mutex::new(Some(HashMap::new())));
        tokio::spawn(write_frames(Arc::clone(&stream), queue));
        let reader = tokio::spawn(read_replies(stream, Arc::clone(&pending), events.clone()));
        Self {
            frames,
            pending,
            events,
            next_id: AtomicU64::new(1),
            reader,
        }
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<ShimEvent> {
        self.events.subscribe()
    }

    /// Sends a request; `None` when the connection is lost. Safe to cancel.
    /// The connection ended; its event may have been sent already.
    pub(crate) fn is_lost(&self) -> bool {
        self.pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none()
    }

    pub(crate) async fn call(&self, call: Call, fds: Vec<OwnedFd>) -> Option<Answer> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()?
            .insert(id, answer);
        let request = Request {
            id,
            call: Some(call),
        };
        let len = u32::try_from(request.encoded_len()).ok()?;
        let mut bytes = Vec::with_capacity(4 + request.encoded_len());
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(&request.encode_to_vec());
        self.frames.send(Frame { bytes, fds }).await.ok()?;
        answered.await.ok()
    }
}

/// A task of its own: a caller that gives up must not leave half a frame.
async fn write_frames(stream: Arc<UnixStream>, mut queue: mpsc::Receiver<Frame>) {
    while let Some(Frame { bytes, mut fds }) = queue.recv().await {
        let mut sent = 0;
        while sent < bytes.len() {
            match stream
                .async_io(Interest::WRITABLE, || send(&stream, &bytes[sent..], &fds))
                .await
            {
                Ok(count) => {
                    sent += count;
                    fds.clear();
                }
                Err(_) => return,
            }
        }
    }
}

fn send(stream: &UnixStream, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<usize> {
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(sendmsg(
        stream,
        &[IoSlice::new(bytes)],
        &mut control,
        flags,
    )?)
}

#[derive(Default)]
struct Incoming {
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

async fn read_replies(
    stream: Arc<UnixStream>,
    pending: Pending,
    events: broadcast::Sender<ShimEvent>,
) {
    let mut incoming = Incoming::default();
    while stream
        .async_io(Interest::READABLE, || incoming.receive(&stream))
        .await
        .is_ok()
    {
        while let Some(reply) = match incoming.next() {
            Ok(reply) => reply,
            Err(error) => {
                tracing::warn!(%error, "a shim's connection is dropped");
                return lose(&pending, &events);
            }
        } {
            deliver(reply, &mut incoming.fds, &pending, &events);
        }
    }
    lose(&pending, &events);
}

fn deliver(
    reply: Reply,
    fds: &mut VecDeque<OwnedFd>,
    pending: &Pending,
    events: &broadcast::Sender<ShimEvent>,
) {
    let Some(result) = reply.result else { return };
    if let reply::Result::Event(event) = result {
        if let Some(event) = event.event {
            // Nobody may be listening.
            drop(events.send(event.into()));
        }
        return;
    }
    let takes_fd = match &result {
        reply::Result::StartPod(reply) => reply.has_network,
        reply::Result::Namespaces(reply) => reply.has_network,
        reply::Result::Exec(reply) => reply.has_master,
        _ => false,
    };
    let fds = if takes_fd {
        fds.pop_front().into_iter().collect()
    } else {
        Vec::new()
    };
    let waiting = pending
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .as_mut()
        .and_then(|map| map.remove(&reply.id));
    if let Some(waiting) = waiting {
        // A caller that gave up lets the descriptors close.
        drop(waiting.send((result, fds)));
    }
}

fn lose(pending: &Pending, events: &broadcast::Sender<ShimEvent>) {
    pending
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    drop(events.send(ShimEvent::Lost));
}

impl Incoming {
    fn receive(&mut self, stream: &UnixStream) -> io::Result<()> {
        let mut chunk = [0; READ_SIZE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let got = recvmsg(
            stream,
            &mut [IoSliceMut::new(&mut chunk)],
            &mut control,
            flags,
        )?
        .bytes;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.bytes.extend_from_slice(&chunk[..got]);
        Ok(())
    }

    fn next(&mut self) -> io::Result<Option<Reply>> {
        let Some((head, rest)) = self.bytes.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let len = usize::try_from(u32::from_be_bytes(*head)).map_err(io::Error::other)?;
        if len > MAX_FRAME {
            return Err(io::Error::other("a frame is too long"));
        }
        if rest.len() < len {
            return Ok(None);
        }
        let reply = Reply::decode(&rest[..len]).map_err(io::Error::other)?;
        self.bytes.drain(..4 + len);
        Ok(Some(reply))
    }
}
