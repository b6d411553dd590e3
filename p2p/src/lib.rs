//! Where the bytes of blobs come from.
//!
//! A blob is named by its digest and read in ranges. Whoever can deliver a range (a registry today,
//! the nodes of a swarm later) implements [`BlobSource`]; whoever unpacks a blob knows only that
//! trait. A source promises no more than *bytes at an offset*: the reader checks the digest of the
//! whole, so a source need not be trusted.

use std::fmt::Debug;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

/// A stream of consecutive bytes of one blob, beginning at the start of the range asked for.
pub type ByteStream = BoxStream<'static, Result<Bytes, FetchError>>;

/// A range of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRange {
    /// Digest of the whole blob, as `algorithm:hex`.
    pub digest: String,
    /// Length of the whole blob in bytes, as its descriptor says.
    pub size: u64,
    /// The bytes wanted; `end` is exclusive and at most `size`.
    pub range: Range<u64>,
}

impl BlobRange {
    /// The whole of a blob of `size` bytes.
    #[must_use]
    pub fn whole(digest: impl Into<String>, size: u64) -> Self {
        Self {
            digest: digest.into(),
            size,
            range: 0..size,
        }
    }

    /// The same blob, from `offset` to the end of this range.
    #[must_use]
    pub fn from_offset(&self, offset: u64) -> Self {
        Self {
            digest: self.digest.clone(),
            size: self.size,
            range: offset..self.range.end,
        }
    }

    /// Whether the range is the whole blob.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.range.start == 0 && self.range.end == self.size
    }
}

/// What a failed fetch means to the reader, who decides whether to ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchErrorKind {
    /// The source does not have the blob.
    NotFound,
    /// The source does not let this caller read the blob.
    Denied,
    /// Too many requests; the source may have named a delay.
    RateLimited {
        /// How long the source asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// The source could not be reached, or broke off: asking again from the same offset may work.
    Interrupted,
    /// Too few bytes came within the progress time-out.
    Stalled,
    /// The source answered, but not with what was asked for.
    Invalid,
}

/// A fetch that failed, at the start or in the middle of its stream.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct FetchError {
    /// What it means to the reader.
    pub kind: FetchErrorKind,
    /// What happened, naming the source.
    pub message: String,
    /// The cause, where there is one.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl FetchError {
    /// An error without a deeper cause.
    #[must_use]
    pub fn new(kind: FetchErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Whether asking the same source again, from the byte reached, is worth it.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            FetchErrorKind::Interrupted
                | FetchErrorKind::Stalled
                | FetchErrorKind::RateLimited { .. }
        )
    }
}

/// Something that can deliver ranges of blobs.
///
/// Dropping the returned future or stream stops the transfer; a source keeps nothing of it.
#[async_trait]
pub trait BlobSource: Send + Sync + Debug {
    /// Starts to deliver a range.
    ///
    /// # Errors
    ///
    /// When the source cannot start; what breaks later is an item of the stream. The stream may
    /// also end early without an error: the reader counts.
    async fn fetch(&self, blob: &BlobRange) -> Result<ByteStream, FetchError>;
}
