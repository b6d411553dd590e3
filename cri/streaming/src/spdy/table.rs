//! The open streams of one SPDY connection, as its reader and its writer see them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::pipe::Pipe;

/// Streams open at once on one connection: 500 forwarded connections.
const MAX_STREAMS: usize = 1000;

#[derive(Debug)]
struct Entry {
    pipe: Arc<Pipe>,
    local_ended: bool,
    remote_ended: bool,
}

#[derive(Debug, Default)]
struct State {
    streams: HashMap<u32, Entry>,
    last_id: u32,
    ended: bool,
    failed: bool,
}

/// What the client may do with a stream number.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// It may send; this is where it goes.
    Open(Arc<Pipe>),
    /// The client itself ended its way.
    RemoteEnded,
    /// The stream was there and is gone.
    Past,
    /// The stream was never opened.
    Unknown,
}

/// Why a stream is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The number was used before, or is below one that was.
    Reused,
    /// Too many streams are open.
    Full,
}

/// Streams by number.
#[derive(Debug, Default)]
pub(crate) struct Table {
    state: Mutex<State>,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Opens a stream; `fin` when the client will send nothing on it.
    pub(crate) fn open(&self, id: u32, fin: bool) -> Result<Arc<Pipe>, Refusal> {
        let mut state = self.lock();
        if id <= state.last_id {
            return Err(Refusal::Reused);
        }
        state.last_id = id;
        if state.ended || state.streams.len() >= MAX_STREAMS {
            return Err(Refusal::Full);
        }
        let pipe = Pipe::new();
        if fin {
            pipe.close();
        }
        let entry = Entry {
            pipe: pipe.clone(),
            local_ended: false,
            remote_ended: fin,
        };
        state.streams.insert(id, entry);
        Ok(pipe)
    }

    pub(crate) fn lookup(&self, id: u32) -> Lookup {
        let state = self.lock();
        match state.streams.get(&id) {
            Some(entry) if entry.remote_ended => Lookup::RemoteEnded,
            Some(entry) => Lookup::Open(entry.pipe.clone()),
            None if id <= state.last_id => Lookup::Past,
            None => Lookup::Unknown,
        }
    }

    /// The client sends no more on a stream.
    pub(crate) fn remote_end(&self, id: u32) {
        let mut state = self.lock();
        let Some(entry) = state.streams.get_mut(&id) else {
            return;
        };
        entry.remote_ended = true;
        entry.pipe.close();
        if entry.local_ended {
            state.streams.remove(&id);
        }
    }

    /// Whether the server may still send on a stream.
    pub(crate) fn may_send(&self, id: u32) -> bool {
        self.lock()
            .streams
            .get(&id)
            .is_some_and(|entry| !entry.local_ended)
    }

    /// The server sends no more on a stream.
    pub(crate) fn local_end(&self, id: u32) {
        let mut state = self.lock();
        let Some(entry) = state.streams.get_mut(&id) else {
            return;
        };
        entry.local_ended = true;
        if entry.remote_ended {
            state.streams.remove(&id);
        }
    }

    /// Cuts a stream and forgets it; whether there was one.
    pub(crate) fn remove(&self, id: u32) -> bool {
        let entry = self.lock().streams.remove(&id);
        entry.inspect(|entry| entry.pipe.reset()).is_some()
    }

    /// Cuts all streams, for good.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        for (_, entry) in state.streams.drain() {
            entry.pipe.reset();
        }
    }

    /// The client broke the protocol.
    pub(crate) fn fail(&self) {
        self.lock().failed = true;
    }

    /// The status of the GOAWAY frame: 0, or 1 after a protocol error.
    pub(crate) fn status(&self) -> u32 {
        u32::from(self.lock().failed)
    }

    /// The highest stream number seen.
    pub(crate) fn last_id(&self) -> u32 {
        self.lock().last_id
    }

    /// Streams that are open now.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().streams.len()
    }
}
