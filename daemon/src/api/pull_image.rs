//! `PullImage`: tells the progress of every layer, and the image's id at the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use joey_image::{ProgressEvent, ProgressSink, PullRequest};
use joey_proto::api::{BlobProgress, PullImageRequest, PullProgress};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::check_login::credentials;
use super::status::Failure;
use super::{STREAM_DEPTH, State, Stream};

/// How often a client hears of progress.
const INTERVAL: Duration = Duration::from_millis(100);

/// Starts the pull; it goes on when the client leaves.
pub fn pull(
    state: &Arc<State>,
    request: PullImageRequest,
) -> Result<Stream<PullProgress>, Failure> {
    if request.image.is_empty() {
        return Err(Failure::Invalid("no image is named".into()));
    }
    let auth = request.auth.map(credentials);
    let layers = Arc::new(Layers::default());
    let pull = PullRequest {
        reference: request.image.clone(),
        auth,
        progress: Some(Arc::clone(&layers) as Arc<dyn ProgressSink>),
    };
    let (client, receiver) = mpsc::channel(STREAM_DEPTH);
    let state = Arc::clone(state);
    tokio::spawn(async move {
        let pulled = state.images.pull(pull);
        let mut pulled = std::pin::pin!(pulled);
        let mut ticks = tokio::time::interval(INTERVAL);
        let last = loop {
            tokio::select! {
                done = &mut pulled => break done,
                _ = ticks.tick() => {
                    if let Some(progress) = layers.news() && client.send(Ok(progress)).await.is_err() {
                        return; // the store goes on by itself
                    }
                }
            }
        };
        let last = last.map(|image| PullProgress {
            image_id: image.id.clone(),
            reference: request.image,
            ..layers.all()
        });
        // A client that left needs no answer.
        drop(
            client
                .send(last.map_err(|error| Status::from(Failure::from(error))))
                .await,
        );
    });
    Ok(ReceiverStream::new(receiver))
}

#[derive(Debug, Default)]
struct Layers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    changed: bool,
    /// Lowest first.
    order: Vec<String>,
    layers: BTreeMap<String, BlobProgress>,
}

impl Layers {
    /// The progress where it is another than at the last call.
    fn news(&self) -> Option<PullProgress> {
        let changed = std::mem::take(&mut self.0.lock().changed);
        changed.then(|| self.all())
    }

    fn all(&self) -> PullProgress {
        let known = self.0.lock();
        let blobs = known
            .order
            .iter()
            .filter_map(|digest| known.layers.get(digest));
        PullProgress {
            blobs: blobs.cloned().collect(),
            ..PullProgress::default()
        }
    }
}

impl Known {
    fn set(&mut self, digest: &str, change: impl FnOnce(&mut BlobProgress)) {
        if let Some(layer) = self.layers.get_mut(digest) {
            change(layer);
        }
    }

    fn expect(&mut self, digest: &str, total: u64) {
        let layer = BlobProgress {
            digest: digest.to_owned(),
            status: "Waiting".into(),
            offset: 0,
            total,
        };
        // The same blob may be two layers.
        if self.layers.insert(digest.to_owned(), layer).is_none() {
            self.order.push(digest.to_owned());
        }
    }
}

impl ProgressSink for Layers {
    fn event(&self, event: &ProgressEvent) {
        let mut known = self.0.lock();
        known.changed = true;
        match event {
            ProgressEvent::Resolved { layers, .. } => {
                for (digest, size) in layers {
                    known.expect(&digest.to_string(), *size);
                }
            }
            ProgressEvent::LayerPresent { digest } => known.set(&digest.to_string(), |layer| {
                layer.status = "Exists".into();
                layer.offset = layer.total;
            }),
            ProgressEvent::LayerBytes { digest, received } => {
                known.set(&digest.to_string(), |layer| {
                    layer.offset = *received;
                    let whole = layer.offset >= layer.total;
                    layer.status = if whole { "Unpacking" } else { "Downloading" }.into();
                });
            }
            ProgressEvent::LayerDone { digest } => known.set(&digest.to_string(), |layer| {
                layer.status = "Done".into();
                layer.offset = layer.total;
            }),
            ProgressEvent::Committing => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use joey_image::Digest;

    use super::*;

    #[test]
    fn layers_keep_their_order_and_news_come_once() {
        let layers = Layers::default();
        assert!(layers.news().is_none());
        let (low, high) = (Digest::of(b"low"), Digest::of(b"high"));
        layers.event(&ProgressEvent::Resolved {
            digest: low,
            layers: vec![(low, 10), (high, 20)],
        });
        layers.event(&ProgressEvent::LayerBytes {
            digest: high,
            received: 5,
        });
        layers.event(&ProgressEvent::LayerDone { digest: low });
        let news = layers.news().unwrap();
        let told: Vec<_> = news
            .blobs
            .iter()
            .map(|blob| (blob.status.as_str(), blob.offset, blob.total))
            .collect();
        assert_eq!(told, [("Done", 10, 10), ("Downloading", 5, 20)]);
        assert!(layers.news().is_none());
    }
}
