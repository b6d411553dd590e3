//! What a pull tells its caller while it runs.

use std::fmt;
use std::sync::Arc;

use crate::digest::Digest;

/// Bytes between two reports of one layer.
const REPORT_EVERY: u64 = 256 << 10;

/// A step of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgressEvent {
    /// It is known what the reference means.
    Resolved {
        /// Digest of the manifest or index.
        digest: Digest,
        /// Digests and compressed sizes in bytes of the layers, lowest first.
        layers: Vec<(Digest, u64)>,
    },
    /// A layer is here already.
    LayerPresent {
        /// Digest of its blob.
        digest: Digest,
    },
    /// Some of a layer's compressed bytes have arrived.
    LayerBytes {
        /// Digest of its blob.
        digest: Digest,
        /// How many so far.
        received: u64,
    },
    /// A layer is unpacked.
    LayerDone {
        /// Digest of its blob.
        digest: Digest,
    },
    /// All layers are here; the image is being made durable.
    Committing,
}

/// Hears how a pull goes. Called from the transfers themselves: it must not block.
pub trait ProgressSink: Send + Sync {
    /// Something happened.
    fn event(&self, event: &ProgressEvent);
}

/// A sink, or none.
#[derive(Clone, Default)]
pub(crate) struct Progress(pub Option<Arc<dyn ProgressSink>>);

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Progress" } else { "None" })
    }
}

impl Progress {
    pub fn event(&self, event: &ProgressEvent) {
        if let Some(sink) = &self.0 {
            sink.event(event);
        }
    }

    pub fn layer(&self, digest: Digest) -> LayerCounter {
        LayerCounter {
            progress: self.clone(),
            digest,
            received: 0,
            reported: 0,
        }
    }
}

/// Counts the bytes of one layer.
#[derive(Debug)]
pub(crate) struct LayerCounter {
    progress: Progress,
    digest: Digest,
    received: u64,
    reported: u64,
}

impl LayerCounter {
    pub fn add(&mut self, bytes: u64) {
        self.received += bytes;
        if self.received - self.reported >= REPORT_EVERY {
            self.report();
        }
    }

    fn report(&mut self) {
        self.reported = self.received;
        self.progress.event(&ProgressEvent::LayerBytes {
            digest: self.digest,
            received: self.received,
        });
    }
}

impl Drop for LayerCounter {
    fn drop(&mut self) {
        if self.received > self.reported {
            self.report();
        }
    }
}
