//! The built-in network when something of a pod is lost, or comes again.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

mod common;

use std::time::Duration;

use common::{NODE, call_tcp, detach_request, inside, ip, on_node, port, run, serve_tcp};
use joey_network::{Network, Protocol, netns};

#[test]
fn a_lost_lease_is_made_again_and_its_pod_goes_on() {
    on_node(|node| async move {
        let network = Network::open(node.config()).await.unwrap();
        let mut pod = node.pod("a");
        pod.port_mappings = vec![port(Protocol::Tcp, 8080, 80)];
        let attachment = network.attach(pod.clone()).await.unwrap();
        serve_tcp(&pod.netns, 80);
        drop(network);
        let leases = node.config().state_dir.join("leases");
        std::fs::write(leases.join("a.json"), "{ torn").unwrap();
        let network = Network::open(node.config()).await.unwrap();
        network.restore("a", &attachment).await.unwrap();
        network.gc(&["a".to_owned()]).await.unwrap();
        assert!(leases.join("a.json").exists());
        call_tcp(attachment.ips[0], 80).expect("the pod");
        inside(&node.world(), || call_tcp(ip(NODE), 8080)).expect("its host port");
        let other = network.attach(node.pod("b")).await.unwrap();
        assert_ne!(other.ips, attachment.ips);
        let mut rival = node.pod("c");
        rival.port_mappings = pod.port_mappings.clone();
        network.attach(rival).await.unwrap_err();
        network
            .detach(detach_request(&pod, &attachment))
            .await
            .unwrap();
        assert!(!leases.join("a.json").exists());
    });
}

#[test]
fn a_link_of_a_known_pod_without_a_lease_stays() {
    on_node(|node| async move {
        let network = Network::open(node.config()).await.unwrap();
        let pod = node.pod("a");
        let link = network
            .attach(pod.clone())
            .await
            .unwrap()
            .host_interface
            .unwrap();
        drop(network);
        std::fs::write(node.config().state_dir.join("leases/a.json"), "{ torn").unwrap();
        let network = Network::open(node.config()).await.unwrap();
        network.gc(&["a".to_owned()]).await.unwrap();
        let there = || run("ip -o link").contains(&link);
        assert!(there());
        network.gc(&[]).await.unwrap();
        assert!(!there());
    });
}

#[test]
fn a_pod_that_comes_back_at_once_keeps_its_interface() {
    on_node(|node| async move {
        let network = Network::open(node.config()).await.unwrap();
        let pod = node.pod("a");
        let attachment = network.attach(pod.clone()).await.unwrap();
        network
            .detach(detach_request(&pod, &attachment))
            .await
            .unwrap();
        let mut again = node.pod("again");
        again.pod_id.clone_from(&pod.pod_id);
        netns::unpin(&pod.netns).unwrap();
        let attachment = network.attach(again.clone()).await.unwrap();
        // Longer than what the first one left has.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        serve_tcp(&again.netns, 80);
        call_tcp(attachment.ips[0], 80).unwrap();
    });
}

#[test]
fn an_attachment_that_fails_over_another_leaves_nothing() {
    on_node(|node| async move {
        let network = Network::open(node.config()).await.unwrap();
        let pod = node.pod("a");
        let first = network.attach(pod.clone()).await.unwrap();
        let other = network.attach(node.pod("b")).await.unwrap();
        let mut wrong = pod.clone();
        wrong.ips = other.ips.clone();
        network.attach(wrong).await.unwrap_err();
        assert!(!node.config().state_dir.join("leases/a.json").exists());
        let link = first.host_interface.unwrap();
        assert!(!run("ip -o link").contains(&link));
    });
}
