//! Who makes pods and pulls images, over and over.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use fastrand::Rng;
use futures::FutureExt as _;
use joey_proto::cri::*;

use crate::node::Node;
use crate::pod::Pod;

/// Runs one pod after the other from its start to its removal.
pub async fn pods(node: Arc<Node>, worker: usize, mut random: Rng) {
    for number in 0.. {
        if node.is_finished() {
            return;
        }
        let name = format!("w{worker}-{number}");
        let pod = AssertUnwindSafe(Pod::live(&node, &name, &mut random));
        match pod.catch_unwind().await {
            Ok(()) => node.count("pods"),
            Err(panic) => node.fail(format!("pod {name}: {}", text(&*panic))),
        }
    }
}

/// Pulls and removes an image.
pub async fn images(node: Arc<Node>) {
    while !node.is_finished() {
        match AssertUnwindSafe(pull_and_remove(&node))
            .catch_unwind()
            .await
        {
            Ok(()) => node.count("pulls"),
            Err(panic) => node.fail(format!("an image: {}", text(&*panic))),
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

async fn pull_and_remove(node: &Node) {
    let image = ImageSpec {
        image: node.other_image.clone(),
        ..Default::default()
    };
    let pull = PullImageRequest {
        image: Some(image.clone()),
        ..Default::default()
    };
    let pulled = node
        .call(|client| {
            let request = pull.clone();
            async move { client.images().pull_image(request).await }
        })
        .await
        .unwrap()
        .into_inner();
    let listed = listed(node).await;
    assert!(listed.contains(&pulled.image_ref), "{listed:?}");
    node.call(|client| {
        let image = Some(image.clone());
        async move {
            let request = RemoveImageRequest { image };
            client.images().remove_image(request).await
        }
    })
    .await
    .unwrap();
    assert!(!self::listed(node).await.contains(&pulled.image_ref));
}

async fn listed(node: &Node) -> Vec<String> {
    let listed = node.call(|client| async move {
        let request = ListImagesRequest::default();
        client.images().list_images(request).await
    });
    let images = listed.await.unwrap().into_inner().images;
    images.into_iter().map(|image| image.id).collect()
}

pub fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let owned = panic.downcast_ref::<String>().cloned();
    owned.unwrap_or_else(|| (*panic.downcast_ref::<&str>().unwrap_or(&"a panic")).to_owned())
}
