//! Images: names, removal, private registries, what containers hold.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use joey_proto::cri::*;
use joey_tests::{
    CREDENTIALS, Daemon, Footprint, Registry, Stand, binary, busybox, container_spec, eventually,
};
use tonic::Code;

fn spec(image: &str) -> Option<ImageSpec> {
    Some(ImageSpec {
        image: image.into(),
        ..Default::default()
    })
}

async fn status(client: &joey_tests::Client, image: &str) -> Option<Image> {
    let request = ImageStatusRequest {
        image: spec(image),
        verbose: false,
    };
    let reply = client.images().image_status(request).await.unwrap();
    reply.into_inner().image
}

async fn list(client: &joey_tests::Client) -> Vec<Image> {
    let request = ListImagesRequest::default();
    let reply = client.images().list_images(request).await.unwrap();
    reply.into_inner().images
}

async fn remove(client: &joey_tests::Client, image: &str) -> Result<(), tonic::Status> {
    let request = RemoveImageRequest { image: spec(image) };
    client.images().remove_image(request).await.map(drop)
}

#[tokio::test]
async fn every_name_means_the_same_image() {
    let stand = Stand::start().await;
    let other = stand
        .registry
        .push("test/busybox", "second", busybox())
        .await;
    assert_eq!(stand.client.pull(&other).await, stand.image, "same content");
    let image = status(&stand.client, &stand.image).await.unwrap();
    assert_eq!(image.id, stand.image);
    let mut tags = image.repo_tags.clone();
    tags.sort();
    let mut wanted = [stand.image_name.clone(), other.clone()];
    wanted.sort();
    assert_eq!(tags, wanted);
    assert_eq!(image.repo_digests.len(), 1, "{image:?}");
    let digest = image.repo_digests[0].clone();
    let repository = stand.registry.name("test/busybox");
    assert!(digest.starts_with(&format!("{repository}@sha256:")));
    assert!(image.size > 100_000 && image.uid.is_none() && image.username.is_empty());
    for name in [&stand.image_name, &other, &digest] {
        assert_eq!(status(&stand.client, name).await.unwrap(), image, "{name}");
    }
    assert_eq!(stand.client.pull(&digest).await, stand.image);
    assert_eq!(list(&stand.client).await, [image]);
    assert!(status(&stand.client, "example.org/none:1").await.is_none());

    // Without its last tag, the image is still there by digest and id; by id all of it goes.
    remove(&stand.client, &other).await.unwrap();
    let left = status(&stand.client, &stand.image).await;
    if let Some(left) = left {
        assert!(!left.repo_tags.contains(&other));
        remove(&stand.client, &stand.image).await.unwrap();
    }
    assert!(list(&stand.client).await.is_empty());
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_tag_that_moves_leaves_the_old_image_without_it() {
    let stand = Stand::start().await;
    let mut changed = busybox();
    changed.file("new", 0o644, b"new");
    let name = stand.registry.push("test/busybox", "latest", changed).await;
    assert_eq!(name, stand.image_name);
    let new = stand.client.pull(&name).await;
    assert_ne!(new, stand.image);
    let old = status(&stand.client, &stand.image).await.unwrap();
    assert!(old.repo_tags.is_empty() && old.repo_digests.len() == 1);
    assert_eq!(status(&stand.client, &name).await.unwrap().id, new);
    stand.assert_clean().await;
}

#[tokio::test]
async fn five_removals_at_once_and_a_container_that_goes_on() {
    let mut stand = Stand::start().await;
    let config = stand.pod_config("web");
    let pod = stand.client.run_pod(&config).await;
    let main = container_spec("main", &stand.image, &["sleep", "1000"]);
    let id = stand.client.run(&pod, &main, &config).await;
    let removals = (0..5).map(|_| remove(&stand.client, &stand.image));
    for removed in futures::future::join_all(removals).await {
        removed.unwrap();
    }
    remove(&stand.client, &stand.image).await.unwrap();
    assert!(list(&stand.client).await.is_empty());
    assert_eq!(
        stand.client.exec(&id, &["/bin/echo", "here"]).await.0,
        "here\n"
    );
    let refused = stand
        .client
        .create(
            &pod,
            &container_spec("late", &stand.image, &["true"]),
            &config,
        )
        .await
        .unwrap_err();
    assert!(refused.message().contains(&stand.image), "{refused}");

    stand.daemon.kill_and_restart().await;
    stand.client = stand.daemon.client().await;
    let (out, err, code) = stand.client.exec(&id, &["/bin/cat", "/etc/passwd"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("alice"));
    let container = stand.client.status(&id).await;
    assert_eq!(container.state(), ContainerState::ContainerRunning);
    assert_eq!(container.image_ref, stand.image);

    // The image comes back whole while its container runs.
    assert_eq!(stand.client.pull(&stand.image_name).await, stand.image);
    let again = container_spec("again", &stand.image, &["cat", "/etc/group"]);
    let again = stand.client.run(&pod, &again, &config).await;
    assert_eq!(stand.client.ended(&again).await.exit_code, 0);
    stand.client.remove_pod(&pod).await;
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_removed_image_gives_its_bytes_back() {
    let stand = Stand::start().await;
    let used = || async {
        let request = ImageFsInfoRequest {};
        let reply = stand.client.images().image_fs_info(request).await.unwrap();
        let info = reply.into_inner();
        let image = &info.image_filesystems[0];
        assert!(image.fs_id.as_ref().unwrap().mountpoint.starts_with('/'));
        assert!(image.timestamp > 0);
        assert!(!info.container_filesystems.is_empty());
        image.used_bytes.as_ref().unwrap().value
    };
    assert!(used().await > 500_000);
    remove(&stand.client, &stand.image).await.unwrap();
    eventually("the bytes are given back", || async {
        used().await < 200_000
    })
    .await;
    stand.assert_clean().await;
}

#[tokio::test]
async fn credentials_are_asked_for_a_present_image_too() {
    let registry = Registry::start_private().await;
    let name = registry.push("team/app", "1", busybox()).await;
    let daemon = Daemon::start().await;
    let before = Footprint::of(&daemon);
    let client = daemon.client().await;
    let pull = |auth: Option<(&str, &str)>| {
        let request = PullImageRequest {
            image: spec(&name),
            auth: auth.map(|(username, password)| AuthConfig {
                username: username.into(),
                password: password.into(),
                ..Default::default()
            }),
            sandbox_config: None,
        };
        let mut images = client.images();
        async move { images.pull_image(request).await }
    };
    for present in [false, true] {
        for wrong in [None, Some(("alice", "guess")), Some(("mallory", "secret"))] {
            let refused = pull(wrong).await.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
            assert!(refused.message().contains("team/app"), "{refused}");
            assert!(!refused.message().contains("guess"), "{refused}");
        }
        assert_eq!(status(&client, &name).await.is_some(), present);
        pull(Some(CREDENTIALS)).await.unwrap();
    }
    assert!(!daemon.log().contains(CREDENTIALS.1));
    before.assert_restored(&daemon).await;
}

#[tokio::test]
async fn a_pull_that_fails_leaves_no_image() {
    let stand = Stand::start().await;
    let request = |image: &str| PullImageRequest {
        image: spec(image),
        ..Default::default()
    };
    let missing = stand.registry.name("test/none:1");
    let mut images = stand.client.images();
    let failed = images.pull_image(request(&missing)).await.unwrap_err();
    assert_eq!(failed.code(), Code::NotFound, "{failed}");
    assert!(failed.message().contains("test/none"), "{failed}");
    let failed = images.pull_image(request("UPPER//case")).await.unwrap_err();
    assert_eq!(failed.code(), Code::InvalidArgument, "{failed}");
    let failed = images.pull_image(request("")).await.unwrap_err();
    assert_eq!(failed.code(), Code::InvalidArgument, "{failed}");
    let failed = images
        .pull_image(request("127.0.0.1:1/no/registry:1"))
        .await
        .unwrap_err();
    assert!(
        failed.message().starts_with("RegistryUnavailable"),
        "{failed}"
    );
    assert_eq!(list(&stand.client).await.len(), 1);
    stand.assert_clean().await;
}

#[tokio::test]
async fn images_of_joeys_containers_are_pinned() {
    let stand = Stand::start().await;
    let joey = |arguments: &[&str]| {
        let ended = Command::new(binary("joey"))
            .arg("-H")
            .arg(format!("unix://{}", stand.daemon.socket().display()))
            .args(arguments)
            .output()
            .unwrap();
        assert!(ended.status.success(), "{ended:?}");
    };
    assert!(!list(&stand.client).await[0].pinned);
    joey(&[
        "run",
        "-d",
        "--name",
        "held",
        &stand.image_name,
        "sleep",
        "1000",
    ]);
    assert!(list(&stand.client).await[0].pinned);
    assert!(status(&stand.client, &stand.image).await.unwrap().pinned);
    joey(&["rm", "-f", "held"]);
    assert!(!list(&stand.client).await[0].pinned);
    stand.assert_clean().await;
}
