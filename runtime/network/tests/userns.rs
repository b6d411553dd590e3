//! A pod with its own user namespace owns its network namespace.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

mod common;

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use common::{call_tcp, inside, on_node, serve_tcp};
use joey_network::{AttachRequest, Network, netns};

#[test]
fn a_namespace_owned_by_a_user_namespace_is_attached() {
    on_node(|node| async move {
        let spawned = Command::new("unshare")
            .args([
                "--user",
                "--map-root-user",
                "--net",
                "sh",
                "-c",
                "echo; exec sleep 60",
            ])
            .stdout(Stdio::piped())
            .spawn();
        let mut child = spawned.unwrap();
        let mut out = child.stdout.take().unwrap();
        let begun = std::io::Read::read(&mut out, &mut [0]).unwrap();
        assert_eq!(begun, 1, "no user namespaces");
        let path = node.path("netns/user");
        let namespace = File::open(format!("/proc/{}/ns/net", child.id())).unwrap();
        netns::pin(namespace.as_fd(), &path).unwrap();
        let network = Network::open(node.config()).await.unwrap();
        let pod = AttachRequest {
            pod_id: "user".to_owned(),
            netns: path.clone(),
            ..AttachRequest::default()
        };
        let attachment = network.attach(pod).await.unwrap();
        serve_tcp(&path, 80);
        for address in &attachment.ips {
            call_tcp(*address, 80).unwrap();
            inside(&path, || call_tcp(*address, 80)).unwrap();
        }
        assert_eq!(netns::interface_stats(&path).unwrap().len(), 1);
        child.kill().unwrap();
        child.wait().unwrap();
    });
}
