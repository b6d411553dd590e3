//! Blobs of a registry: ranges of them, as streams that may not be too slow.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use joey_p2p::{BlobRange, BlobSource, ByteStream, FetchError, FetchErrorKind};
use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};
use tokio::time::{Instant, timeout};

use super::error::{FailureKind, Failures, HostFailure};
use super::{Capability, Host, Session};

/// The fewest bytes that must come within the progress time-out, but for a transfer's end.
const PACE: usize = 64 << 10;

#[async_trait]
impl BlobSource for Session {
    async fn fetch(&self, blob: &BlobRange) -> Result<ByteStream, FetchError> {
        let mut failures = Failures::default();
        for host in self.hosts(Capability::Pull) {
            match self.blob_at(&host, blob).await {
                Ok(stream) => return Ok(stream),
                Err(failure) => host.failed(failure, &mut failures),
            }
        }
        Err(failures.into_fetch_error(&blob.digest))
    }
}

impl Session {
    async fn blob_at(&self, host: &Arc<Host>, blob: &BlobRange) -> Result<ByteStream, HostFailure> {
        let path = format!("{}/blobs/{}", self.reference.path(), blob.digest);
        let mut headers = HeaderMap::new();
        if !blob.is_whole() {
            let last = blob.range.end.saturating_sub(1);
            let range = format!("bytes={}-{last}", blob.range.start);
            if let Ok(value) = HeaderValue::from_str(&range) {
                headers.insert(RANGE, value);
            }
        }
        let response = host
            .endpoint
            .request(Method::GET, &path, headers, &self.limits)
            .await?;
        let skip = check_range(&host.endpoint.name(), &response, blob)?;
        Ok(body_stream(
            Arc::clone(host),
            response,
            blob,
            skip,
            self.limits.progress,
        ))
    }
}

/// Checks that the answer is the range asked for; returns how many bytes to drop at its start, for
/// hosts that ignore ranges.
fn check_range(host: &str, response: &Response, blob: &BlobRange) -> Result<u64, HostFailure> {
    let invalid = |message: String| HostFailure::new(host, FailureKind::Invalid, message);
    if response.status() == StatusCode::PARTIAL_CONTENT {
        let got = response
            .headers()
            .get(CONTENT_RANGE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let start = got
            .strip_prefix("bytes ")
            .and_then(|rest| rest.split('-').next())
            .and_then(|start| start.parse::<u64>().ok());
        return if start == Some(blob.range.start) {
            Ok(0)
        } else {
            Err(invalid(format!(
                "asked for bytes from {} on, got {got:?}",
                blob.range.start
            )))
        };
    }
    match response.content_length() {
        Some(length) if length != blob.size => Err(invalid(format!(
            "blob {} has {length} bytes, its descriptor says {}",
            blob.digest, blob.size
        ))),
        _ => Ok(blob.range.start),
    }
}

struct Body {
    host: Arc<Host>,
    response: Response,
    skip: u64,
    left: u64,
    pace: Pace,
}

/// Finds transfers that trickle: they would hold places that other pulls need.
struct Pace {
    /// Longest wait for [`PACE`] bytes.
    limit: Duration,
    waited: Duration,
    bytes: usize,
}

impl Pace {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// Waits for the next bytes; `None`: too few came. Time in which nobody asks, as the disk is
    /// slow, does not count.
    async fn next<T>(
        &mut self,
        bytes: impl Future<Output = T>,
        count: impl Fn(&T) -> usize,
    ) -> Option<T> {
        let asked = Instant::now();
        let got = timeout(self.limit.saturating_sub(self.waited), bytes)
            .await
            .ok()?;
        self.waited += asked.elapsed();
        self.bytes += count(&got);
        if self.bytes >= PACE {
            *self = Self::new(self.limit);
        }
        Some(got)
    }
}

/// The body as a stream of no more bytes than asked for, that fails when they come too slowly.
fn body_stream(
    host: Arc<Host>,
    response: Response,
    blob: &BlobRange,
    skip: u64,
    progress: Duration,
) -> ByteStream {
    let body = Body {
        host,
        response,
        skip,
        left: blob.range.end - blob.range.start,
        pace: Pace::new(progress),
    };
    futures::stream::try_unfold(body, |mut body| async move {
        Ok(body.next().await?.map(|chunk| (chunk, body)))
    })
    .boxed()
}

impl Body {
    async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        let failed = |kind, message: String| {
            self.host.failures.fetch_add(1, Ordering::Relaxed);
            FetchError::new(kind, format!("{}: {message}", self.host.endpoint.name()))
        };
        while self.left > 0 {
            let count = |chunk: &reqwest::Result<Option<Bytes>>| match chunk {
                Ok(Some(chunk)) => chunk.len(),
                _ => 0,
            };
            let Some(chunk) = self.pace.next(self.response.chunk(), count).await else {
                let message = format!(
                    "{} bytes in {} s are too few",
                    self.pace.bytes,
                    self.pace.limit.as_secs()
                );
                return Err(failed(FetchErrorKind::Stalled, message));
            };
            let mut chunk = match chunk {
                Err(error) => {
                    let failure = HostFailure::transport("", error);
                    return Err(failed(FetchErrorKind::Interrupted, failure.message));
                }
                Ok(None) => {
                    let message = format!("the transfer ended {} bytes early", self.left);
                    return Err(failed(FetchErrorKind::Interrupted, message));
                }
                Ok(Some(chunk)) => chunk,
            };
            let drop = usize::try_from(self.skip).map_or(chunk.len(), |s| s.min(chunk.len()));
            self.skip -= drop as u64;
            bytes::Buf::advance(&mut chunk, drop);
            if chunk.is_empty() {
                continue;
            }
            chunk.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= chunk.len() as u64;
            return Ok(Some(chunk));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use tokio::time::sleep;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_too_slow_whatever_its_pauses() {
        let mut pace = Pace::new(LIMIT);
        let mut came = 0;
        let begun = Instant::now();
        loop {
            let byte = async {
                sleep(Duration::from_secs(1)).await;
                1
            };
            match pace.next(byte, |count| *count).await {
                Some(count) => came += count,
                None => break,
            }
        }
        assert!((58..=60).contains(&came), "{came}");
        assert!(begun.elapsed() <= LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_steady_transfer_goes_on_however_slow_its_reader_is() {
        let mut pace = Pace::new(LIMIT);
        for _ in 0..100 {
            let chunk = async {
                sleep(LIMIT / 3).await;
                PACE / 2
            };
            assert!(pace.next(chunk, |count| *count).await.is_some());
        }
        for _ in 0..100 {
            sleep(2 * LIMIT).await;
            assert!(pace.next(ready(1), |count| *count).await.is_some());
        }
    }
}
