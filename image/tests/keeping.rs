//! What becomes of pulled images: removals, leases, new daemons. Needs root and `docker-registry`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends by a panic"
)]

mod common;

use std::collections::HashSet;

use common::registry::Registry;
use common::{Pack, Store, TestImage, eventually, layer, names, simple};

#[tokio::test(flavor = "multi_thread")]
async fn removal_takes_all_names_and_gives_the_space_back() {
    let registry = Registry::start().await;
    let store = Store::new();
    let empty = store.fs_info();
    let image = simple("r");
    let one = registry.push("r", "one", &image).await;
    let two = registry.push("s", "two", &image).await;
    for name in [
        one.clone(),
        format!("sha256:{}", image.id.hex()),
        image.id.hex()[..13].into(),
    ] {
        store.pull_ok(&one).await;
        assert_eq!(store.pull_ok(&two).await.repo_tags.len(), 2);
        store.remove(&name).await.unwrap();
        assert!(store.get(&two).is_none() && store.list().is_empty());
        store.remove(&name).await.unwrap();
    }
    store.remove("never/there:1").await.unwrap();
    store.remove("Not A Reference").await.unwrap();
    store.settled_with(0).await;
    eventually("usage follows", || {
        (store.fs_info().used_bytes == empty.used_bytes).then_some(())
    })
    .await;
    assert!(names(&store.root().join("content/blobs/sha256")).is_empty());

    store.pull_ok(&one).await;
    let five = (0..5).map(|_| store.remove(&one));
    for result in futures::future::join_all(five).await {
        result.unwrap();
    }
    assert!(store.list().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_in_use_outlive_their_image_and_the_daemon() {
    let registry = Registry::start().await;
    let mut store = Store::new();
    let base = layer(Pack::Gzip, &[("base", b"b")]);
    let first = TestImage::new(&[base.clone(), layer(Pack::Gzip, &[("first", b"1")])]);
    let second = TestImage::new(&[base, layer(Pack::Gzip, &[("second", b"2")])]);
    let first_name = registry.push("a", "1", &first).await;
    let second_name = registry.push("b", "2", &second).await;
    let image = store.pull_ok(&first_name).await;
    store.pull_ok(&second_name).await;
    assert_eq!(store.layers().len(), 3, "the base is shared");

    let lease = store.lease(&image).unwrap();
    store.hold("container-1", &image.id).unwrap();
    store.hold("container-1", &image.id).unwrap();
    store.remove(&first_name).await.unwrap();
    drop(lease);
    store.settled_with(3).await;
    store.lease_held("container-1").unwrap();
    assert!(store.hold("../evil", &image.id).is_err());

    store.reopen().await;
    assert_eq!(store.gc().await.unwrap().layers, 0);
    store.settled_with(3).await;
    let held = store.lease_held("container-1").unwrap();
    assert_eq!(std::fs::read(held.lowers()[0].join("first")).unwrap(), b"1");
    drop(held);
    store.retain_holds(&HashSet::from(["container-1".to_owned()]));
    assert_eq!(store.layers().len(), 3);
    store.retain_holds(&HashSet::new());
    store.settled_with(2).await;
    store.lease_held("container-1").unwrap_err();
    store.lease(&image).unwrap_err();
    assert!(store.get(&second_name).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_daemon_finds_its_images_and_clears_the_rest() {
    let registry = Registry::start().await;
    let mut store = Store::new();
    let good = registry.push("good", "1", &simple("good")).await;
    let bad = simple("bad");
    let bad_name = registry.push("bad", "1", &bad).await;
    let broken = simple("broken");
    let broken_name = registry.push("broken", "1", &broken).await;
    for name in [&good, &bad_name, &broken_name] {
        store.pull_ok(name).await;
    }
    store.set_pinned(&good, true).await.unwrap();
    assert!(store.get(&good).unwrap().pinned);
    let root = store.root();
    store.store = None;
    std::fs::write(
        root.join(format!("images/{}.json", bad.id.hex())),
        "{\"version\":1",
    )
    .unwrap();
    std::fs::write(
        root.join(format!("content/blobs/sha256/{}", broken.id.hex())),
        "{}",
    )
    .unwrap();
    std::fs::create_dir_all(root.join("staging/dead/0")).unwrap();
    std::fs::create_dir_all(root.join("trash/x/y")).unwrap();
    std::fs::create_dir_all(root.join("layers/garbage")).unwrap();
    std::fs::write(root.join("images/.x.json.00.tmp"), "").unwrap();
    store.reopen().await;
    let kept = store.get(&good).unwrap();
    assert!(kept.pinned);
    assert_eq!(kept.config.cmd, ["sh"]);
    assert_eq!(store.list().len(), 1);
    assert_eq!(names(&root.join("quarantine")).len(), 2);
    let report = store.gc().await.unwrap();
    // Two layers of the lost record and the garbage; those of the damaged image were still known.
    assert_eq!((report.layers, report.stages), (3, 2), "{report:?}");
    store.settled_with(2).await;
    assert!(names(&root.join("staging")).is_empty());
    assert_eq!(names(&root.join("images")).len(), 1);
    store.pull_ok(&bad_name).await;
    joey_image::ImageStore::open(joey_image::ImageConfig::new(&root)).unwrap_err();
}
