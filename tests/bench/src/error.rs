//! Why a measurement ended: none of these may pass as a result.

use std::path::{Path, PathBuf};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A call failed.
    #[error("{side}: {call}: {} ({:?})", .source.message(), .source.code())]
    Call {
        /// The runtime.
        side: String,
        /// The RPC.
        call: &'static str,
        /// What it answered.
        source: Box<tonic::Status>,
    },
    /// An answer does not hold what was asked for.
    #[error("{side}: {what}")]
    Wrong {
        /// The runtime.
        side: String,
        /// What is wrong with it.
        what: String,
    },
    /// Nobody listens.
    #[error("{side}: no answer at {}", .socket.display())]
    Connect {
        /// The runtime.
        side: String,
        /// Where it should listen.
        socket: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file holds something else than it should.
    #[error("{}: cannot understand {text:?}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
    /// The description of the sides is wrong.
    #[error("{}", .path.display())]
    Sides {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The results cannot be encoded.
    #[error("the results")]
    Encode(#[source] serde_json::Error),
}

impl BenchError {
    /// Names the file of an I/O error.
    pub fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::File {
            path: path.to_owned(),
            source,
        }
    }
}
