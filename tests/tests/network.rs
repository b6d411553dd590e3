//! The built-in network: addresses, host ports, dual stack, restarts.
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use joey_proto::cri::*;
use joey_tests::{Stand, container_spec, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SERVER: &str = "mkdir /www; echo hello > /www/index.html; exec httpd -f -p 8080 -h /www";

/// The body of `/`, where a server answers.
async fn get(address: IpAddr, port: u16) -> Option<String> {
    let connected = TcpStream::connect((address, port));
    let mut stream = tokio::time::timeout(Duration::from_secs(2), connected)
        .await
        .ok()?
        .ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some(body.trim().to_owned())
}

async fn answers(address: IpAddr, port: u16) {
    eventually(&format!("{address} port {port} answers"), || async {
        get(address, port).await.as_deref() == Some("hello")
    })
    .await;
}

async fn addresses(stand: &Stand, pod: &str) -> Vec<IpAddr> {
    let request = PodSandboxStatusRequest {
        pod_sandbox_id: pod.into(),
        verbose: false,
    };
    let reply = stand.client.runtime().pod_sandbox_status(request).await;
    let network = reply.unwrap().into_inner().status.unwrap().network.unwrap();
    let more = network.additional_ips.into_iter().map(|it| it.ip);
    std::iter::once(network.ip)
        .chain(more)
        .map(|text| text.parse().unwrap())
        .collect()
}

async fn server(stand: &Stand, config: &PodSandboxConfig) -> (String, String) {
    let pod = stand.client.run_pod(config).await;
    let main = container_spec("main", &stand.image, &["sh", "-c", SERVER]);
    let id = stand.client.run(&pod, &main, config).await;
    (pod, id)
}

fn mapping(host_port: i32) -> PortMapping {
    PortMapping {
        protocol: Protocol::Tcp.into(),
        container_port: 8080,
        host_port,
        host_ip: String::new(),
    }
}

/// Addresses of the node that are neither loopback nor the bridge's.
fn node_addresses() -> [IpAddr; 2] {
    let addresses = ["192.0.2.1", "2001:db8::1"];
    for address in addresses {
        // It is there from the test before, maybe.
        let arguments = ["addr", "add", address, "dev", "lo"];
        drop(Command::new("ip").args(arguments).output().unwrap());
    }
    addresses.map(|text| text.parse().unwrap())
}

#[tokio::test]
async fn pods_are_reached_from_the_node_and_from_each_other() {
    let stand = Stand::start().await;
    let web = stand.pod_config("web");
    let (web_pod, _) = server(&stand, &web).await;
    let address = addresses(&stand, &web_pod).await[0];
    answers(address, 8080).await;

    let other = stand.pod_config("other");
    let other_pod = stand.client.run_pod(&other).await;
    let main = container_spec("main", &stand.image, &["sleep", "1000"]);
    let id = stand.client.run(&other_pod, &main, &other).await;
    let url = format!("http://{address}:8080/");
    let (out, err, code) = stand
        .client
        .exec(&id, &["wget", "-q", "-O", "-", &url])
        .await;
    assert_eq!((out.as_str(), code), ("hello\n", 0), "{err}");
    assert_ne!(addresses(&stand, &other_pod).await[0], address);

    stand.client.remove_pod(&web_pod).await;
    stand.client.remove_pod(&other_pod).await;
    assert_eq!(get(address, 8080).await, None);
    stand.assert_clean().await;
}

#[tokio::test]
async fn host_ports_and_their_conflicts() {
    let node = node_addresses()[0];
    let stand = Stand::start().await;
    let mut web = stand.pod_config("web");
    web.port_mappings = vec![mapping(28080)];
    let (pod, _) = server(&stand, &web).await;
    answers(node, 28080).await;
    answers("127.0.0.1".parse().unwrap(), 28080).await;

    let mut other = stand.pod_config("other");
    other.port_mappings = vec![mapping(28080)];
    let request = RunPodSandboxRequest {
        config: Some(other.clone()),
        ..Default::default()
    };
    let begun = Instant::now();
    let mut runtime = stand.client.runtime();
    let refused = runtime.run_pod_sandbox(request.clone()).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(2), "refused at once");
    assert!(refused.message().contains("28080"), "{refused}");
    let listed = runtime
        .list_pod_sandbox(ListPodSandboxRequest::default())
        .await
        .unwrap();
    assert_eq!(listed.into_inner().items.len(), 1, "no partial pod");

    // The port is free as soon as its pod is stopped, and the name can be used again.
    let stop = StopPodSandboxRequest {
        pod_sandbox_id: pod.clone(),
    };
    runtime.stop_pod_sandbox(stop).await.unwrap();
    assert_eq!(get(node, 28080).await, None);
    let (second, _) = server(&stand, &other).await;
    answers(node, 28080).await;
    stand.client.remove_pod(&pod).await;
    answers(node, 28080).await;
    stand.client.remove_pod(&second).await;
    stand.assert_clean().await;
}

#[tokio::test]
async fn both_families() {
    let subnets = "[network]\nsubnets = [\"10.99.0.0/24\", \"fd00:99::/64\"]\n";
    let stand = Stand::start_with(subnets).await;
    let mut web = stand.pod_config("web");
    web.port_mappings = vec![mapping(28081)];
    let (pod, id) = server(&stand, &web).await;
    let found = addresses(&stand, &pod).await;
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().any(IpAddr::is_ipv4) && found.iter().any(IpAddr::is_ipv6));
    for address in found {
        answers(address, 8080).await;
    }
    for node in node_addresses() {
        answers(node, 28081).await;
    }
    let (out, _, _) = stand.client.exec(&id, &["ip", "addr"]).await;
    assert!(
        out.contains("fd00:99::") && out.contains("10.99.0."),
        "{out}"
    );
    stand.client.remove_pod(&pod).await;
    stand.assert_clean().await;
}

#[tokio::test]
async fn addresses_are_given_back() {
    let stand = Stand::start_with("[network]\nsubnets = [\"10.98.0.0/29\"]\n").await;
    for round in 0..8 {
        let config = stand.pod_config(&format!("pod-{round}"));
        let pod = stand.client.run_pod(&config).await;
        stand.client.remove_pod(&pod).await;
    }
    // As many at once as there are, and one more.
    let mut pods = Vec::new();
    let refused = loop {
        let config = stand.pod_config(&format!("all-{}", pods.len()));
        let request = RunPodSandboxRequest {
            config: Some(config),
            ..Default::default()
        };
        match stand.client.runtime().run_pod_sandbox(request).await {
            Ok(reply) => pods.push(reply.into_inner().pod_sandbox_id),
            Err(refused) => break refused,
        }
        assert!(pods.len() < 8);
    };
    assert!(pods.len() >= 4, "{}", pods.len());
    assert!(refused.message().contains("10.98.0.0/29"), "{refused}");
    for pod in pods {
        stand.client.remove_pod(&pod).await;
    }
    stand.assert_clean().await;
}

#[tokio::test]
async fn the_network_outlives_the_daemon() {
    let node = node_addresses()[0];
    let mut stand = Stand::start().await;
    let mut web = stand.pod_config("web");
    web.port_mappings = vec![mapping(28082)];
    let (pod, _) = server(&stand, &web).await;
    let address = addresses(&stand, &pod).await[0];
    answers(node, 28082).await;
    stand.daemon.kill();
    // The pod's shim has the socket: no other program takes the port meanwhile.
    std::net::TcpListener::bind("0.0.0.0:28082").unwrap_err();
    assert_eq!(get(node, 28082).await.as_deref(), Some("hello"));
    assert_eq!(get(address, 8080).await.as_deref(), Some("hello"));
    stand.daemon.restart().await;
    stand.client = stand.daemon.client().await;
    answers(node, 28082).await;
    assert_eq!(addresses(&stand, &pod).await, [address]);

    let mut other = stand.pod_config("other");
    other.port_mappings = vec![mapping(28082)];
    let request = RunPodSandboxRequest {
        config: Some(other),
        ..Default::default()
    };
    let mut runtime = stand.client.runtime();
    let refused = runtime.run_pod_sandbox(request).await.unwrap_err();
    assert!(refused.message().contains("28082"), "{refused}");
    let next = stand.client.run_pod(&stand.pod_config("next")).await;
    assert_ne!(addresses(&stand, &next).await, [address]);
    stand.client.remove_pod(&next).await;
    std::net::TcpListener::bind("0.0.0.0:28082").unwrap_err();
    stand.client.remove_pod(&pod).await;
    std::net::TcpListener::bind("0.0.0.0:28082").expect("the port is free");
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_bad_lease_costs_a_running_pod_nothing() {
    let mut stand = Stand::start().await;
    let mut config = stand.pod_config("lease");
    config.port_mappings = vec![mapping(18_099)];
    let (pod, _) = server(&stand, &config).await;
    let address = addresses(&stand, &pod).await[0];
    answers(address, 8080).await;
    stand
        .restart_after(|daemon| {
            let lease = daemon.root().join(format!("network/leases/{pod}.json"));
            assert!(lease.exists());
            std::fs::write(lease, "{ torn").unwrap();
        })
        .await;
    assert_eq!(addresses(&stand, &pod).await[0], address);
    answers(address, 8080).await;
    let other = stand.client.run_pod(&stand.pod_config("other")).await;
    assert_ne!(addresses(&stand, &other).await[0], address);
    stand.client.remove_pod(&other).await;
    stand.client.remove_pod(&pod).await;
    let leases = stand.daemon.root().join("network/leases");
    for bad in std::fs::read_dir(leases).unwrap().flatten() {
        assert!(bad.file_name().to_string_lossy().ends_with(".quarantined"));
        std::fs::remove_file(bad.path()).unwrap();
    }
    stand.assert_clean().await;
}
