//! Pulling from a real registry, and what becomes of the images. Needs root and `docker-registry`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends by a panic"
)]

mod common;

use std::collections::HashSet;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use common::registry::{Registry, tls_file};
use common::{
    DOCKER_LIST, Layer, OCI_INDEX, Pack, Store, TestImage, arch, chain, eventually, index, layer,
    names, user,
};
use joey_image::{Digest, PullErrorKind};

fn simple(seed: &str) -> TestImage {
    TestImage::new(&[
        layer(Pack::Gzip, &[("bin/", b""), ("bin/sh", seed.as_bytes())]),
        layer(Pack::Gzip, &[("etc/", b""), ("etc/name", seed.as_bytes())]),
    ])
}

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
async fn credentials_are_proven_for_present_images_too() {
    let registry = Registry::start_locked().await;
    let store = Store::new();
    let reference = registry.push("private", "v1", &simple("p")).await;
    for round in ["absent", "present"] {
        for wrong in [None, user("joe", "wrong"), user("eve", "s3cret")] {
            let error = store.try_pull(&reference, wrong).await.unwrap_err();
            assert_eq!(
                error.kind(),
                PullErrorKind::Denied,
                "{round}: {}",
                chain(&error)
            );
            assert!(!chain(&error).contains("s3cret"));
        }
        let pulled = store
            .try_pull(&reference, user("joe", "s3cret"))
            .await
            .unwrap();
        assert_eq!(pulled.repo_tags, [reference.as_str()]);
    }
    let mut elsewhere = user("joe", "s3cret").unwrap();
    elsewhere.server_address = "https://other.example".into();
    let error = store
        .try_pull(&reference, Some(elsewhere))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::Denied);
    let mut encoded = joey_image::Credentials {
        auth: "am9lOnMzY3JldA==".into(),
        server_address: format!("http://{}", registry.address),
        ..Default::default()
    };
    store
        .try_pull(&reference, Some(encoded.clone()))
        .await
        .unwrap();
    encoded.auth = "%%%".into();
    let error = store.try_pull(&reference, Some(encoded)).await.unwrap_err();
    assert_eq!(error.kind(), PullErrorKind::InvalidRequest);
}

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
    assert_eq!(names(&root.join("staging")).len(), 1);
    assert_eq!(names(&root.join("images")).len(), 1);
    store.pull_ok(&bad_name).await;
    joey_image::ImageStore::open(joey_image::ImageConfig::new(&root)).unwrap_err();
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

#[tokio::test(flavor = "multi_thread")]
async fn tls_follows_the_hosts_file() {
    let registry = Registry::start_tls().await;
    let store = Store::new();
    let reference = registry.push("tls", "1", &simple("tls")).await;
    let server = format!("server = 'https://{}'\n", registry.address);
    let folder = format!("{}_", registry.address.replace(':', "_"));
    let at = |name| tls_file(name).display().to_string();
    let client = format!(
        "client = [['{}', '{}']]\n",
        at("client.pem"),
        at("client.key")
    );
    let ca = format!("ca = '{}'\n", at("ca.pem"));
    for (options, works) in [
        (String::new(), false),
        (ca.clone(), false),
        (client.clone(), false),
        (format!("{client}skip_verify = true\n"), true),
        (format!("{client}{ca}"), true),
    ] {
        store.write_hosts(&folder, &format!("{server}{options}"));
        let pulled = store.try_pull(&reference, None).await;
        match pulled {
            Ok(_) => assert!(works, "{options}"),
            Err(error) => assert!(!works, "{options}: {}", chain(&error)),
        }
    }
    store.write_hosts(&folder, &format!("{server}ca = '/nonexistent.pem'\n"));
    let error = store.try_pull(&reference, None).await.unwrap_err();
    assert!(
        chain(&error).contains("/nonexistent.pem"),
        "{}",
        chain(&error)
    );
}
