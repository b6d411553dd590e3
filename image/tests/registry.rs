//! Pulling from a real registry. Needs root and `docker-registry`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends by a panic"
)]

mod common;

use std::collections::HashSet;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use common::registry::Registry;
use common::{
    DOCKER_LIST, Layer, OCI_INDEX, Pack, Store, TestImage, arch, chain, index, layer, simple,
};
use joey_image::{Digest, PullErrorKind};

/// The paths in an overlay of these layers, mounted in a namespace of its own.
fn merged(lowers: &[std::path::PathBuf]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let lowers: Vec<_> = lowers.iter().map(|p| p.display().to_string()).collect();
    let script = format!(
        "mount -t overlay overlay -o lowerdir={} {} && find {} -mindepth 1 -printf '/%P\\n'",
        lowers.join(":"),
        dir.path().display(),
        dir.path().display()
    );
    let found = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&found.stderr);
    assert!(found.status.success(), "{error}");
    let text = String::from_utf8(found.stdout).unwrap();
    let mut paths: Vec<_> = text.lines().map(str::to_owned).collect();
    paths.sort();
    paths
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_all_compressions_is_pulled_and_can_be_stacked() {
    let registry = Registry::start().await;
    let store = Store::new();
    let big = vec![b'x'; 3 << 20];
    let image = TestImage::new(&[
        layer(Pack::Gzip, &[("a/", b""), ("a/one", b"1"), ("a/two", &big)]),
        layer(Pack::Zstd, &[("a/", b""), ("a/.wh.one", b""), ("b", b"2")]),
        layer(
            Pack::Plain,
            &[("a/", b""), ("a/.wh..wh..opq", b""), ("c", b"3")],
        ),
    ]);
    let reference = registry.push("test/app", "v1", &image).await;
    let pulled = store.pull_ok(&reference).await;
    assert_eq!(pulled.id, image.id.to_string());
    assert_eq!(pulled.repo_tags, [reference.as_str()]);
    let repository = format!("{}/test/app", registry.address);
    assert_eq!(
        pulled.repo_digests,
        [format!("{repository}@{}", image.digest())]
    );
    assert_eq!(pulled.config.cmd, ["sh"]);
    assert_eq!(pulled.config.env, ["A=b"]);
    assert_eq!(pulled.config.user, "1000");
    assert_eq!(pulled.created.as_deref(), Some("2024-05-06T07:08:09Z"));
    assert!(pulled.size > 3 << 20);
    assert_eq!(store.list().len(), 1);

    let lease = store.lease(&pulled).unwrap();
    let [top, middle, lowest] = lease.lowers() else {
        panic!("three layers: {:?}", lease.lowers());
    };
    assert_eq!(std::fs::read(top.join("c")).unwrap(), b"3");
    assert_eq!(std::fs::read(middle.join("b")).unwrap(), b"2");
    assert_eq!(std::fs::read(lowest.join("a/two")).unwrap(), big);
    let hidden = std::fs::symlink_metadata(middle.join("a/one")).unwrap();
    assert!(hidden.file_type().is_char_device() && hidden.rdev() == 0);

    assert_eq!(merged(lease.lowers()), ["/a", "/b", "/c"]);

    let info = store.fs_info();
    assert!(info.mountpoint.is_dir());
    assert!(info.used_bytes > 3 << 20 && info.inodes_used > 8);
    for name in [
        &pulled.id,
        &pulled.id[7..],
        &pulled.id[7..20],
        &reference,
        &pulled.repo_digests[0],
    ] {
        assert_eq!(store.get(name).unwrap().id, pulled.id, "{name}");
    }
    let config = store.config_json(&pulled).await.unwrap();
    assert_eq!(Digest::of(&config).to_string(), pulled.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_gives_the_image_of_this_machine_and_its_own_digest() {
    let registry = Registry::start().await;
    let store = Store::new();
    for (repository, kind, docker) in [("oci", OCI_INDEX, false), ("dock", DOCKER_LIST, true)] {
        let (mut mine, mut other) = (simple(repository), simple("other"));
        if docker {
            (mine, other) = (mine.docker(), other.docker());
        }
        for image in [&mine, &other] {
            registry.push(repository, "x", image).await;
        }
        let list = index(kind, &[(&other, "s390x"), (&mine, arch())]);
        registry
            .push_manifest(repository, "multi", &list, kind)
            .await;
        let reference = format!("{}/{repository}:multi", registry.address);
        let pulled = store.pull_ok(&reference).await;
        assert_eq!(pulled.id, mine.id.to_string());
        let digest = Digest::of(&list);
        let by_digest = format!("{}/{repository}@{digest}", registry.address);
        assert_eq!(pulled.repo_digests, [by_digest.as_str()]);
        assert_eq!(
            store.pull_ok(&by_digest).await.repo_tags,
            [reference.as_str()]
        );
    }
    let foreign = simple("foreign");
    registry.push("none", "x", &foreign).await;
    let list = index(OCI_INDEX, &[(&foreign, "s390x")]);
    registry
        .push_manifest("none", "multi", &list, OCI_INDEX)
        .await;
    let error = store
        .try_pull(&format!("{}/none:multi", registry.address), None)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::UnusableImage);
    assert!(chain(&error).contains("linux/s390x"), "{}", chain(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_move_and_digests_stay() {
    let registry = Registry::start().await;
    let mut store = Store::new();
    let (old, new) = (simple("old"), simple("new"));
    let reference = registry.push("app", "latest", &old).await;
    let repository = format!("{}/app", registry.address);
    let by_digest = format!("{repository}@{}", old.digest());
    let pulled = store.pull_ok(&by_digest).await;
    assert!(pulled.repo_tags.is_empty());
    assert_eq!(pulled.repo_digests, [by_digest.as_str()]);
    let both = format!("{repository}:nonexistent@{}", old.digest());
    assert!(store.pull_ok(&both).await.repo_tags.is_empty());

    assert_eq!(
        store.pull_ok(&reference).await.repo_tags,
        [reference.as_str()]
    );
    registry.push("app", "latest", &new).await;
    let moved = store.pull_ok(&reference).await;
    assert_eq!(moved.id, new.id.to_string());
    assert_eq!(store.get(&reference).unwrap().id, new.id.to_string());
    let left = store.get(&by_digest).unwrap();
    assert!(left.repo_tags.is_empty());
    assert_eq!(store.list().len(), 2);
    store.reopen().await;
    assert_eq!(store.get(&reference).unwrap().id, new.id.to_string());
    assert!(store.get(&by_digest).unwrap().repo_tags.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_layers_leave_nothing_behind() {
    let registry = Registry::start().await;
    let store = Store::new();
    let escaping = layer(
        Pack::Gzip,
        &[("../../../../../../escaped", b"1"), ("/abs", b"2")],
    );
    let reference = registry
        .push("evil", "1", &TestImage::new(&[escaping]))
        .await;
    let image = store.pull_ok(&reference).await;
    let lease = store.lease(&image).unwrap();
    assert_eq!(
        std::fs::read(lease.lowers()[0].join("escaped")).unwrap(),
        b"1"
    );
    assert!(!std::path::Path::new("/escaped").exists());

    let lying = Layer {
        diff_id: Digest::of(b"something else"),
        ..layer(Pack::Gzip, &[("f", b"1")])
    };
    let bad_whiteout = layer(Pack::Gzip, &[("ok", b""), (".wh...", b"")]);
    let mut cut = layer(Pack::Gzip, &[("f", &[7; 100_000])]);
    cut.blob.truncate(cut.blob.len() / 2);
    for (tag, layer, want) in [
        ("lying", lying, "config says"),
        ("whiteout", bad_whiteout, ".wh..."),
        ("cut", cut, "cannot read the layer"),
    ] {
        let reference = registry.push("evil", tag, &TestImage::new(&[layer])).await;
        let error = store.try_pull(&reference, None).await.unwrap_err();
        assert!(chain(&error).contains(want), "{tag}: {}", chain(&error));
    }
    store.settled_with(1).await;
    assert_eq!(store.list().len(), 1);
}

/// A config may name any layer; only who can deliver a layer's blob gets it.
#[tokio::test(flavor = "multi_thread")]
async fn naming_a_layer_does_not_give_it() {
    let registry = Registry::start().await;
    let store = Store::new();
    let secret = layer(Pack::Gzip, &[("secret", b"s")]);
    let private = registry
        .push(
            "private",
            "1",
            &TestImage::new(std::slice::from_ref(&secret)),
        )
        .await;
    store.pull_ok(&private).await;
    let forged = Layer {
        diff_id: secret.diff_id,
        ..layer(Pack::Gzip, &[("other", b"o")])
    };
    let theft = registry
        .push("theft", "1", &TestImage::new(&[forged]))
        .await;
    let error = store.try_pull(&theft, None).await.unwrap_err();
    assert!(chain(&error).contains("config says"), "{}", chain(&error));
    // The same tar in another compression is proven by unpacking, once.
    let again = layer(Pack::Zstd, &[("secret", b"s")]);
    let honest = registry
        .push("honest", "1", &TestImage::new(&[again]))
        .await;
    store.pull_ok(&honest).await;
    assert_eq!(store.layers().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn artifacts_of_tars_can_be_mounted() {
    let registry = Registry::start().await;
    let store = Store::new();
    let mut ids = HashSet::new();
    for seed in ["one", "two"] {
        let artifact = TestImage::assemble(
            &[layer(Pack::Gzip, &[("model", seed.as_bytes())])],
            b"{}".to_vec(),
            "application/vnd.oci.empty.v1+json",
        );
        let reference = registry.push("artifact", seed, &artifact).await;
        let pulled = store.pull_ok(&reference).await;
        assert!(pulled.is_artifact);
        ids.insert(pulled.id.clone());
        let lease = store.lease(&pulled).unwrap();
        assert_eq!(
            std::fs::read(lease.lowers()[0].join("model")).unwrap(),
            seed.as_bytes()
        );
    }
    assert_eq!(ids.len(), 2, "equal configs do not make equal artifacts");
    let mut store = store;
    store.reopen().await;
    assert_eq!(store.list().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_without_layers_and_shared_implied_folders_work() {
    let registry = Registry::start().await;
    let store = Store::new();
    let empty = registry.push("empty", "1", &TestImage::new(&[])).await;
    let image = store.pull_ok(&empty).await;
    assert_eq!(store.lease(&image).unwrap().lowers().len(), 1);
    let base = layer(Pack::Gzip, &[("home/", b""), ("home/a", b"")]);
    let above = layer(Pack::Gzip, &[("home/sub/file", b"")]);
    let name = registry
        .push("implied", "1", &TestImage::new(&[base, above]))
        .await;
    let image = store.pull_ok(&name).await;
    let lease = store.lease(&image).unwrap();
    let mtime = |path: std::path::PathBuf| std::fs::metadata(path).unwrap().mtime();
    assert_eq!(
        mtime(lease.lowers()[0].join("home")),
        1,
        "as in the layer below"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_tried_in_order_and_silence_is_named() {
    let registry = Registry::start().await;
    let store = Store::new();
    registry.push("library/app", "1", &simple("m")).await;
    let hosts = format!(
        "server = 'http://127.0.0.1:1'\n[host.'http://127.0.0.1:2']\n[host.'http://{}']\n",
        registry.address
    );
    store.write_hosts("docker.io", &hosts);
    let pulled = store.pull_ok("app:1").await;
    assert_eq!(pulled.repo_tags, ["docker.io/library/app:1"]);
    let error = store.try_pull("app:absent", None).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::NotFound, "{}", chain(&error));
    let error = store.try_pull("127.0.0.1:1/x:1", None).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Unavailable);
    assert!(
        error.to_string().starts_with("RegistryUnavailable"),
        "{error}"
    );
    let error = store.try_pull("UPPER", None).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::InvalidRequest);
}
