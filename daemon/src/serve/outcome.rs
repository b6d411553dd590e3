//! How a call ended: counted and told once, also for one that streams its answer.

use std::sync::Arc;
use std::time::Duration;

use hyper::HeaderMap;
use tonic::{Code, Status};
use tracing::Span;

use super::body::status_of;
use super::layer::{Shared, is_own};

/// What is known of a call when its answer begins; a client that leaves before the end is counted
/// when this is dropped.
#[derive(Debug)]
pub struct Outcome {
    shared: Arc<Shared>,
    path: String,
    took: Duration,
    span: Span,
    told: bool,
}

impl Outcome {
    /// Of a call in whose `span` it is told.
    pub fn new(shared: Arc<Shared>, path: String, took: Duration, span: Span) -> Self {
        Self {
            shared,
            path,
            took,
            span,
            told: false,
        }
    }

    /// The headers, or trailers, that have the call's status.
    pub fn tell(&mut self, headers: &HeaderMap) {
        let code = status_of(headers).unwrap_or(Code::Ok);
        self.count(code);
        // The CRI's service tells its own.
        if is_own(&self.path) {
            self.span.in_scope(|| report(code, self.took, headers));
        }
    }

    fn count(&mut self, code: Code) {
        if !std::mem::replace(&mut self.told, true) {
            self.shared.calls.record(&self.path, code, self.took);
        }
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        self.count(Code::Cancelled);
    }
}

/// Errors that a caller meets in normal life are not for the operator's eyes.
fn report(code: Code, took: Duration, headers: &HeaderMap) {
    let milliseconds = took.as_micros() as f64 / 1000.0;
    match code {
        Code::Ok => tracing::debug!(milliseconds, "answered"),
        Code::NotFound | Code::Unimplemented | Code::Cancelled => {
            tracing::debug!(milliseconds, ?code, "answered");
        }
        _ => {
            let status = Status::from_header_map(headers);
            let message = status.as_ref().map_or("", Status::message);
            tracing::warn!(milliseconds, ?code, message, "failed");
        }
    }
}
