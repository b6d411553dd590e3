//! Registries and images made to harm the node, pulled for real. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends by a panic"
)]

mod common;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use common::fake::{Answer, Fake};
use common::{Layer, Pack, Store, TestImage, chain, layer, simple};
use joey_image::{Digest, ImageConfig, ImageStore, PullErrorKind, PullRequest, UnpackLimits};

const TRICKLE: Duration = Duration::from_millis(100);

/// Answers one byte after the other.
fn trickling(path: &'static str) -> impl Fn(&common::fake::Request) -> Option<Answer> {
    move |request| {
        request.path.contains(path).then(|| Answer {
            trickle: TRICKLE,
            ..Answer::status(200).body(vec![b'{'; 1 << 20])
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trickling_registry_does_not_stop_other_pulls() {
    let (slow, quick) = (Fake::start().await, Fake::start().await);
    let store = Store::new();
    let mut pulls = tokio::task::JoinSet::new();
    let mut layers_of_all = HashSet::new();
    for number in 0..8 {
        let layers: Vec<Layer> = (0..8)
            .map(|part| layer(Pack::Gzip, &[("f", format!("{number} {part}").as_bytes())]))
            .collect();
        layers_of_all.extend(
            layers
                .iter()
                .map(|layer| Digest::of(&layer.blob).to_string()),
        );
        let request = PullRequest {
            reference: slow.push(&format!("a{number}"), "1", &TestImage::new(&layers)),
            ..PullRequest::default()
        };
        let store = Arc::clone(store.store.as_ref().unwrap());
        pulls.spawn(async move { store.pull(request).await });
    }
    slow.hook(move |request| {
        let name = request.path.rsplit('/').next().unwrap_or_default();
        layers_of_all.contains(name).then(|| Answer {
            pause: Duration::from_secs(60),
            ..Answer::status(200).body("x")
        })
    });
    common::eventually("layers are asked for", || {
        (slow.seen("GET", "/blobs/").len() >= 8 + 4).then_some(())
    })
    .await;
    let name = quick.push("b", "1", &simple("quick"));
    let pulled = tokio::time::timeout(Duration::from_secs(5), store.pull_ok(&name));
    pulled.await.expect("another registry's images come");
    pulls.abort_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_trickles_is_given_up() {
    let fake = Fake::start().await;
    let store = Store::new();
    fake.hook(trickling("/manifests/"));
    let name = format!("{}/a:1", fake.address);
    let pull = tokio::time::timeout(Duration::from_secs(8), store.try_pull(&name, None));
    let error = pull.await.expect("an end").unwrap_err();
    assert_eq!(
        error.kind(),
        PullErrorKind::Unavailable,
        "{}",
        chain(&error)
    );
}

/// A layer that holds `size` zeros in a file.
fn bomb(pack: Pack, size: usize) -> TestImage {
    TestImage::new(&[layer(pack, &[("zeros", &vec![0; size])])])
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_end_at_the_bound_and_leave_nothing() {
    let fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    let config = ImageConfig {
        limits: UnpackLimits {
            bytes: 1 << 20,
            ..UnpackLimits::default()
        },
        ..ImageConfig::new(dir.path().join("store"))
    };
    let store = ImageStore::open(config).unwrap();
    for (name, pack) in [("gzip", Pack::Gzip), ("zstd", Pack::Zstd)] {
        let image = bomb(pack, 16 << 20);
        assert!(image.blobs[0].len() < 1 << 20, "no bomb");
        let request = PullRequest {
            reference: fake.push(name, "1", &image),
            ..PullRequest::default()
        };
        let error = store.pull(request).await.unwrap_err();
        let text = chain(&error);
        assert!(text.contains("more than"), "{text}");
    }
    common::eventually("nothing is left", || {
        let left =
            ["layers", "trash"].map(|name| common::names(&dir.path().join("store").join(name)));
        left.iter().all(|names| names.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zstd_frame_cannot_ask_for_any_memory() {
    let fake = Fake::start().await;
    let store = Store::new();
    // A frame whose window is 2^30 bytes, of one block that repeats a byte.
    let frame = [
        0x28,
        0xb5,
        0x2f,
        0xfd,
        0x00,
        (30 - 10) << 3,
        0x03,
        0x40,
        0x00,
        0x00,
    ];
    let image = TestImage::new(&[Layer {
        diff_id: Digest::of(b"any"),
        blob: frame.to_vec(),
        media_type: "application/vnd.oci.image.layer.v1.tar+zstd".into(),
    }]);
    let name = fake.push("a", "1", &image);
    let error = store.try_pull(&name, None).await.unwrap_err();
    let text = chain(&error);
    assert!(text.contains("memory"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_registry_cannot_name_a_private_image() {
    let (owner, thief) = (Fake::start().await, Fake::start().await);
    let store = Store::new();
    let image = simple("private");
    let name = owner.push("private", "1", &image);
    store.pull_ok(&name).await;
    // All that a manifest made by hand needs are digests.
    let stolen = thief.push("theft", "1", &image);
    thief.hook(|request| {
        request
            .path
            .contains("/blobs/")
            .then(|| Answer::status(404))
    });
    let error = store.try_pull(&stolen, None).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::NotFound, "{}", chain(&error));
    // Nor does a config do that it has, which names the layers.
    let layers: Vec<String> = image.blobs[..2]
        .iter()
        .map(|blob| Digest::of(blob).to_string())
        .collect();
    thief.hook(move |request| {
        let name = request.path.rsplit('/').next().unwrap_or_default();
        layers
            .iter()
            .any(|layer| layer == name)
            .then(|| Answer::status(404))
    });
    let error = store.try_pull(&stolen, None).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::NotFound, "{}", chain(&error));
    // The owner's registry is asked for nothing twice.
    let blobs = owner.seen("GET", "/blobs/").len();
    store.pull_ok(&name).await;
    assert_eq!(owner.seen("GET", "/blobs/").len(), blobs);
    // One that has the layers gives them once.
    thief.hook(|_| None);
    store.pull_ok(&stolen).await;
    let again = thief.push("theft", "2", &image);
    let blobs = thief
        .seen("GET", &Digest::of(&image.blobs[0]).to_string())
        .len();
    store.pull_ok(&again).await;
    let after = thief
        .seen("GET", &Digest::of(&image.blobs[0]).to_string())
        .len();
    assert_eq!((after, store.layers().len()), (blobs, 2));
}
