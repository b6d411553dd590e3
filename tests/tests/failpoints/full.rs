//! A full disk: what needs space says what is full and leaves nothing, what stops and removes works,
//! and with space everything works again.

use std::time::Duration;

use joey_tests::{Full, Setup};

use crate::node::Node;
use crate::operation::{Operation, Scene};

/// An operation that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(60);

#[tokio::test]
async fn no_space() {
    every_operation(Full::Space).await;
}

#[tokio::test]
async fn no_inodes() {
    every_operation(Full::Inodes).await;
}

async fn every_operation(full: Full) {
    let setup = Setup {
        small_disk: true,
        ..Setup::with("")
    };
    let mut node = Node::start(&setup).await;
    for operation in Operation::ALL {
        println!("{operation:?}");
        then_space_again(&node, operation, full).await;
        then_a_restart(&mut node, operation, full).await;
    }
}

/// The operation on a full disk, and again with space.
async fn then_space_again(node: &Node, operation: Operation, full: Full) {
    let mut scene = operation.prepare(node).await;
    node.stand.daemon.disk().fill(full);
    let done = perform(node, operation, &scene).await;
    node.stand.daemon.disk().free();
    if !done {
        operation.retry(node, &mut scene).await;
    }
    operation.assert_done(node, &scene, true).await;
    operation.clean(node, &scene).await;
    node.assert_clean().await;
    node.assert_bystander().await;
}

/// The operation on a full disk, a new daemon there, and everything is stopped and removed.
async fn then_a_restart(node: &mut Node, operation: Operation, full: Full) {
    let scene = operation.prepare(node).await;
    node.stand.daemon.disk().fill(full);
    let done = perform(node, operation, &scene).await;
    node.restart().await;
    node.assert_bystander().await;
    if done {
        operation.assert_done(node, &scene, true).await;
    }
    operation.clean(node, &scene).await;
    node.stand.daemon.disk().free();
    node.assert_clean().await;
    node.assert_bystander().await;
}

/// False where it failed, as it should.
async fn perform(node: &Node, operation: Operation, scene: &Scene) -> bool {
    let reply = tokio::time::timeout(LONGEST, operation.perform(node, scene)).await;
    node.assert_bystander().await;
    let Err(status) = reply.expect("the operation hangs") else {
        return true;
    };
    println!("  {status}");
    assert!(operation.needs_space(), "{operation:?}: {status}");
    let message = status.message();
    assert!(message.to_lowercase().contains("no space left"), "{status}");
    let daemon = &node.stand.daemon;
    let folders = [daemon.root(), daemon.state()];
    let names = |folder: &std::path::PathBuf| message.contains(&*folder.to_string_lossy());
    assert!(folders.iter().any(names), "what is full? {status}");
    if operation.makes_something() {
        assert!(node.pods().await.len() <= usize::from(!scene.pod.is_empty()));
        assert!(node.containers().await.is_empty());
    }
    false
}
