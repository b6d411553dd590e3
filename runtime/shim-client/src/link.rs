//! One connection to a shim: frames with descriptors, requests and replies paired by id.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use joey_proto::shim::{ExecExit, Kill, Reply, Request, event, reply, request::Call};
use prost::Message;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::event::ShimEvent;

const QUEUED_REQUESTS: usize = 64;
const QUEUED_EVENTS: usize = 1024;
/// The largest frame taken from a shim, bytes.
const MAX_FRAME: usize = 8 << 20;
const READ_SIZE: usize = 16 << 10;
/// Descriptors that go with one request; the shim's buffer has room for as many.
pub(crate) const MAX_FDS: usize = 16;

/// Of requests whose answer nobody awaits.
const NOBODY: u64 = u64::MAX;
const SIGKILL: u32 = 9;

/// An answer and what comes with it.
pub(crate) type Answer = (reply::Result, With);

/// What comes with an answer.
#[derive(Debug)]
pub(crate) struct With {
    pub fds: Vec<OwnedFd>,
    /// Of a process that was started: its end.
    pub end: Option<oneshot::Receiver<ExecExit>>,
}

/// What is awaited of the shim.
#[derive(Debug, Default)]
struct Awaited {
    answers: HashMap<u64, oneshot::Sender<Answer>>,
    /// By the process's id. Unlike an event none is missed, whatever else happens.
    ends: HashMap<u64, oneshot::Sender<ExecExit>>,
}

/// None once the connection is lost.
type Pending = Arc<Mutex<Option<Awaited>>>;

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
        let pending: Pending = Arc::new(Mutex::new(Some(Awaited::default())));
        tokio::spawn(write_frames(Arc::clone(&stream), queue));
        let to_kill = frames.clone();
        let reader = tokio::spawn(read_replies(
            stream,
            Arc::clone(&pending),
            events.clone(),
            to_kill,
        ));
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

    /// The connection ended; its event may have been sent already.
    pub(crate) fn is_lost(&self) -> bool {
        self.pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none()
    }

    /// Sends a request; `None` when the connection is lost. Safe to cancel.
    pub(crate) async fn call(&self, call: Call, fds: Vec<OwnedFd>) -> Option<Answer> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()?
            .answers
            .insert(id, answer);
        let mut waiting = Waiting {
            link: self,
            id,
            answered,
        };
        self.frames.send(Frame::new(id, call, fds)?).await.ok()?;
        (&mut waiting.answered).await.ok()
    }

    /// Kills a process that an exec made, without waiting.
    pub(crate) fn end_exec(&self, exec_id: u64) {
        end_exec(&self.frames, exec_id);
    }
}

/// A request under way. One that is given up leaves nothing: a process that is started all the
/// same has no owner and is killed.
struct Waiting<'a> {
    link: &'a Link,
    id: u64,
    answered: oneshot::Receiver<Answer>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(pending) = &mut *self
            .link
            .pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
        {
            pending.answers.remove(&self.id);
        }
        // Delivered between the last look and now.
        self.answered.close();
        if let Ok((reply::Result::Exec(late), _)) = self.answered.try_recv() {
            self.link.end_exec(late.exec_id);
        }
    }
}

impl Frame {
    /// `None` when the request is too long for its length field.
    fn new(id: u64, call: Call, fds: Vec<OwnedFd>) -> Option<Self> {
        let request = Request {
            id,
            call: Some(call),
        };
        let len = u32::try_from(request.encoded_len()).ok()?;
        let mut bytes = Vec::with_capacity(4 + request.encoded_len());
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(&request.encode_to_vec());
        Some(Self { bytes, fds })
    }
}

fn end_exec(frames: &mpsc::Sender<Frame>, exec_id: u64) {
    let kill = Call::Kill(Kill {
        signal: SIGKILL,
        exec_id,
        ..Kill::default()
    });
    let frame = Frame::new(NOBODY, kill, Vec::new());
    // A connection that is closed has ended its processes.
    if let Some(Err(TrySendError::Full(frame))) = frame.map(|frame| frames.try_send(frame))
        && let Ok(tokio) = tokio::runtime::Handle::try_current()
    {
        let frames = frames.clone();
        tokio.spawn(async move { frames.send(frame).await });
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
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("too many descriptors for one request"));
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
    frames: mpsc::Sender<Frame>,
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
            deliver(reply, &mut incoming.fds, &pending, &events, &frames);
        }
    }
    lose(&pending, &events);
}

fn deliver(
    reply: Reply,
    fds: &mut VecDeque<OwnedFd>,
    pending: &Pending,
    events: &broadcast::Sender<ShimEvent>,
    frames: &mpsc::Sender<Frame>,
) {
    let Some(result) = reply.result else { return };
    if let reply::Result::Event(event) = result {
        if let Some(event) = event.event {
            if let event::Event::ExecExit(exit) = &event {
                tell_end(exit, pending);
            }
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
    let mut end = None;
    let waiting = {
        let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.as_mut().and_then(|awaited| {
            let waiting = awaited.answers.remove(&reply.id)?;
            if let reply::Result::Exec(started) = &result {
                let (teller, told) = oneshot::channel();
                awaited.ends.insert(started.exec_id, teller);
                end = Some(told);
            }
            Some(waiting)
        })
    };
    let answer = (result, With { fds, end });
    let unclaimed = match waiting {
        Some(waiting) => waiting.send(answer).err(),
        None => Some(answer),
    };
    // The caller gave up: its descriptors are closed, its process ended.
    if let Some((reply::Result::Exec(late), _)) = unclaimed {
        end_exec(frames, late.exec_id);
    }
}

fn tell_end(exit: &ExecExit, pending: &Pending) {
    let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
    let teller = pending
        .as_mut()
        .and_then(|awaited| awaited.ends.remove(&exit.exec_id));
    if let Some(teller) = teller {
        let _nobody_waits = teller.send(*exit);
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
