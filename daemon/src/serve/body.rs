//! A response's body: keeps the call's place until the last byte, and ends when the daemon does.

use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::HeaderMap;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use hyper::header::{HeaderName, HeaderValue};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Status};

use super::lane::Place;
use super::outcome::Outcome;

/// The header of a call's operation id.
pub const OPERATION: HeaderName = HeaderName::from_static("joey-operation");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// What precedes an operation's id in an error's text; the space that follows is percent-encoded.
const NAMED: &[u8] = b"(operation";
const STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// A call's response.
pub struct CallBody {
    inner: tonic::body::Body,
    ending: Ending,
    stopping: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    _place: Option<Place>,
}

/// What is done with the status that ends a call.
#[derive(Debug)]
pub struct Ending {
    /// The operation's id; None where the service names its own.
    pub name: Option<String>,
    /// Where the status is told.
    pub outcome: Outcome,
}

impl Ending {
    /// Names the operation in headers that have the status, and tells it.
    pub fn tell(&mut self, headers: &mut HeaderMap) {
        self.name(headers);
        self.outcome.tell(headers);
    }

    /// Names the operation.
    pub fn name(&self, headers: &mut HeaderMap) {
        if let Some(operation) = &self.name {
            name_operation(headers, operation);
        }
    }
}

impl CallBody {
    /// With the place of a call that was served; the token cuts off a body that may stay open for
    /// ever.
    pub fn new(
        inner: tonic::body::Body,
        ending: Ending,
        served: Option<(Option<CancellationToken>, Place)>,
    ) -> Self {
        let (stopping, place) = served.unzip();
        let stopping = stopping.flatten();
        Self {
            inner,
            ending,
            stopping: stopping.map(|token| Box::pin(token.cancelled_owned())),
            _place: place,
        }
    }
}

impl HttpBody for CallBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| {
                frame.map(|mut frame| {
                    if let Some(trailers) = frame.trailers_mut() {
                        this.ending.tell(trailers);
                    }
                    frame
                })
            }));
        }
        if let Some(stopping) = &mut this.stopping
            && stopping.as_mut().poll(context).is_ready()
        {
            this.stopping = None;
            this.inner = tonic::body::Body::empty();
            let status = Status::unavailable("the daemon is stopping");
            let mut trailers = HeaderMap::new();
            return Poll::Ready(status.add_header(&mut trailers).ok().map(|()| {
                this.ending.tell(&mut trailers);
                Ok(Frame::trailers(trailers))
            }));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The gRPC status in headers or trailers, where there is one.
pub fn status_of(headers: &HeaderMap) -> Option<Code> {
    headers
        .get(STATUS)
        .map(|status| Code::from_bytes(status.as_bytes()))
}

/// Adds the operation's id: as a header, and to the text of an error.
fn name_operation(headers: &mut HeaderMap, operation: &str) {
    let Ok(id) = HeaderValue::from_str(operation) else {
        return;
    };
    if status_of(headers).is_some_and(|code| code != Code::Ok) {
        let message = headers.get(MESSAGE).map_or(&b""[..], HeaderValue::as_bytes);
        if message.windows(NAMED.len()).any(|part| part == NAMED) {
            return; // by the service itself
        }
        let mut text = message.to_vec();
        text.extend_from_slice(format!(" (operation {operation})").as_bytes());
        if let Ok(text) = HeaderValue::from_bytes(&text) {
            headers.insert(MESSAGE, text);
        }
    }
    headers.insert(OPERATION, id);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_their_operation_and_successes_only_carry_it() {
        let mut headers = HeaderMap::new();
        Status::not_found("no 5%").add_header(&mut headers).unwrap();
        name_operation(&mut headers, "ab1");
        let status = Status::from_header_map(&headers).unwrap();
        assert_eq!(status.message(), "no 5% (operation ab1)");
        assert_eq!(headers[&OPERATION], "ab1");

        let mut headers = HeaderMap::new();
        name_operation(&mut headers, "ab1");
        assert!(!headers.contains_key(&MESSAGE));
        assert_eq!(headers[&OPERATION], "ab1");
    }
}
