//! What registries do to their clients, played by a fake one. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends by a panic"
)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::fake::{Answer, Fake};
use common::{Pack, Store, TestImage, chain, layer};
use joey_image::{Digest, ProgressEvent, ProgressSink, PullErrorKind, PullRequest};

/// Data that does not compress.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    })
    .take(size)
    .collect()
}

fn image() -> TestImage {
    TestImage::new(&[layer(Pack::Gzip, &[("data", &noise(2 << 20))])])
}

fn blob_path(image: &TestImage) -> String {
    format!("/blobs/{}", Digest::of(&image.blobs[0]))
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_pulls_fetch_a_layer_once() {
    let fake = Fake::start().await;
    let store = Store::new();
    let image = image();
    let name = fake.push("a", "1", &image);
    let other = fake.push("b", "1", &image);
    let pulls = [&name, &name, &other, &name].map(|name| store.pull_ok(name));
    let pulled = futures::future::join_all(pulls).await;
    assert!(pulled.iter().all(|p| p.id == image.id.to_string()));
    assert_eq!(fake.seen("GET", &blob_path(&image)).len(), 1);
    // A present image costs one HEAD.
    let before = fake.seen("GET", "").len();
    store.pull_ok(&name).await;
    assert_eq!(fake.seen("GET", "").len(), before);
    assert!(!fake.seen("HEAD", "/manifests/1").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_leaves_its_pull_running() {
    let fake = Fake::start().await;
    let store = Store::new();
    let image = image();
    let name = fake.push("a", "1", &image);
    fake.hook(move |request| {
        (request.method == "GET" && request.path.contains("/manifests/")).then(|| Answer {
            pause: Duration::from_millis(100),
            ..Answer::status(200)
                .with("content-type", image.manifest_type)
                .body(image.manifest.clone())
        })
    });
    let cancelled = tokio::time::timeout(Duration::from_millis(30), store.pull_ok(&name));
    cancelled.await.unwrap_err();
    common::eventually("the pull ends", || store.get(&name)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_transfers_are_resumed_by_range() {
    let fake = Fake::start().await;
    let store = Store::new();
    let image = image();
    let name = fake.push("a", "1", &image);
    let path = blob_path(&image);
    let blob = image.blobs[0].clone();
    let hooked = path.clone();
    let tries = AtomicUsize::new(0);
    fake.hook(move |request| {
        if !request.path.contains(&hooked) {
            return None;
        }
        match tries.fetch_add(1, Ordering::Relaxed) {
            // Breaks off, then stalls for longer than the progress time-out, then ignores the range.
            0 => Some(Answer {
                cut: Some(700_000),
                ..Answer::status(200).body(blob.clone())
            }),
            1 => Some(Answer {
                pause: Duration::from_secs(60),
                ..Answer::status(206)
                    .with(
                        "content-range",
                        format!("bytes 700000-{}/{}", blob.len() - 1, blob.len()),
                    )
                    .body(&blob[700_000..])
            }),
            2 => Some(Answer {
                cut: Some(1_500_000),
                ..Answer::status(200).body(blob.clone())
            }),
            _ => None,
        }
    });
    store.pull_ok(&name).await;
    let ranges: Vec<_> = fake
        .seen("GET", &path)
        .iter()
        .map(|request| request.header("range").to_owned())
        .collect();
    let last = image.blobs[0].len() - 1;
    let expected = [
        String::new(),
        format!("bytes=700000-{last}"),
        format!("bytes=700000-{last}"),
        format!("bytes=1500000-{last}"),
    ];
    assert_eq!(ranges, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_never_accepted() {
    let fake = Fake::start().await;
    let store = Store::new();
    let image = image();
    let name = fake.push("a", "1", &image);
    let mut wrong = image.blobs[0].clone();
    let middle = wrong.len() / 2;
    wrong[middle] ^= 1;
    let path = blob_path(&image);
    fake.hook(move |request| {
        request
            .path
            .contains(&path)
            .then(|| Answer::status(200).body(wrong.clone()))
    });
    store.try_pull(&name, None).await.unwrap_err();
    let path = blob_path(&image);
    fake.hook(move |request| {
        request
            .path
            .contains(&path)
            .then(|| Answer::status(200).body("short"))
    });
    let error = store.try_pull(&name, None).await.unwrap_err();
    assert!(
        chain(&error).contains("descriptor says"),
        "{}",
        chain(&error)
    );
    fake.hook(|request| {
        request
            .path
            .contains("/manifests/sha256:")
            .then(|| Answer::status(200).body("{}"))
    });
    let by_digest = format!("{}/a@{}", fake.address, image.digest());
    let error = store.try_pull(&by_digest, None).await.unwrap_err();
    assert!(
        chain(&error).contains("digest asked for"),
        "{}",
        chain(&error)
    );
    assert!(store.list().is_empty());
    store.settled_with(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registries_may_be_slow_limited_or_odd() {
    let fake = Fake::start().await;
    let store = Store::new();
    let image = image();
    let name = fake.push("a", "1", &image);
    let count = AtomicUsize::new(0);
    fake.hook(move |request| {
        let first = |n| count.fetch_add(1, Ordering::Relaxed) < n;
        if request.method == "HEAD" {
            return Some(Answer::status(405));
        }
        (request.path.contains("/manifests/") && first(2))
            .then(|| Answer::status(503).with("retry-after", "1"))
    });
    let start = std::time::Instant::now();
    store.pull_ok(&name).await;
    assert!(
        start.elapsed() >= Duration::from_secs(2),
        "Retry-After counts"
    );
    // HEAD is refused: GET proves the right.
    store.pull_ok(&name).await;
    fake.hook(|_| {
        let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#;
        Some(Answer::status(429).with("retry-after", "3600").body(body))
    });
    let error = store.try_pull(&name, None).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::RateLimited);
    assert!(error.to_string().contains("rate limited"), "{error}");
    fake.hook(|_| Some(Answer::status(500)));
    let error = store.try_pull(&name, None).await.unwrap_err();
    assert!(
        error.to_string().starts_with("RegistryUnavailable"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_hear_which_registry_is_meant() {
    let fake = Fake::start().await;
    let store = Store::new();
    fake.push("library/app", "1", &image());
    let hosts = format!(
        "[host.'http://{}']\ncapabilities = ['pull', 'resolve']\n",
        fake.address
    );
    store.write_hosts("_default", &hosts);
    store.pull_ok("registry.example:5000/library/app:1").await;
    assert!(!fake.seen("GET", "ns=registry.example%3A5000").is_empty());
}

#[derive(Default)]
struct Recorder(parking_lot::Mutex<Vec<ProgressEvent>>);

impl ProgressSink for Recorder {
    fn event(&self, event: &ProgressEvent) {
        self.0.lock().push(event.clone());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told() {
    let fake = Fake::start().await;
    let store = Store::new();
    let image = image();
    let name = fake.push("a", "1", &image);
    let recorder = Arc::new(Recorder::default());
    let request = PullRequest {
        reference: name,
        auth: None,
        progress: Some(recorder.clone()),
    };
    store.pull(request.clone()).await.unwrap();
    let size = image.blobs[0].len() as u64;
    let digest = Digest::of(&image.blobs[0]);
    let events = std::mem::take(&mut *recorder.0.lock());
    assert_eq!(
        events[0],
        ProgressEvent::Resolved {
            digest: image.digest(),
            layers: vec![(digest, size)]
        }
    );
    let received = size;
    assert!(events.contains(&ProgressEvent::LayerBytes { digest, received }));
    assert!(events.contains(&ProgressEvent::LayerDone { digest }));
    assert_eq!(events.last(), Some(&ProgressEvent::Committing));
    store.pull(request).await.unwrap();
    assert!(
        recorder
            .0
            .lock()
            .contains(&ProgressEvent::LayerPresent { digest })
    );
}
