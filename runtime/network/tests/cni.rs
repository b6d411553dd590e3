//! CNI with Debian's plugins (containernetworking-plugins) and with plugins made for the test.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

mod common;

use std::net::IpAddr;

use common::cni::{RESULT, config, log, need_plugins, ready, write_conf, write_plugin};
use common::{
    NODE, Node, WORLD, call_tcp, detach_request, eventually, inside, ip, on_node, port, run,
    serve_tcp,
};
use joey_network::{AttachRequest, CniFolder, Mode, Network, Protocol, Provider, netns};

const BRIDGE: &str = r#"{
  "cniVersion": "1.0.0", "name": "test",
  "plugins": [
    {"type": "bridge", "bridge": "cnitest0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
     "ipam": {"type": "host-local", "dataDir": "IPAM-DATA",
              "ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd00:77::/64"}]],
              "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}"#;

fn leases(node: &Node) -> usize {
    let Ok(entries) = std::fs::read_dir(node.path("ipam/test")) else {
        return 0;
    };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains("77"))
        .count()
}

#[test]
fn bridge_and_portmap() {
    on_node(|node| async move {
        need_plugins();
        let network = Network::open(config(&node, Mode::Cni)).await.unwrap();
        let status = network.status();
        assert!(!status.ready);
        assert_eq!(status.reason, "NetworkPluginNotReady");
        assert!(status.message.contains("net.d"), "{}", status.message);
        network.attach(node.pod("early")).await.unwrap_err();
        write_conf(&node, "10-test.conflist", BRIDGE);
        ready(&network).await;
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let mut a = node.pod("a");
        a.port_mappings = vec![port(Protocol::Tcp, 8080, 80), port(Protocol::Udp, 0, 53)];
        let b = node.pod("b");
        let first = network.attach(a.clone()).await.unwrap();
        let second = network.attach(b.clone()).await.unwrap();
        assert_eq!(first.provider, Provider::Cni);
        assert_eq!(first.ips, [ip("10.77.0.2"), ip("fd00:77::2")]);
        assert_eq!(first.gateways[0], ip("10.77.0.1"));
        assert!(first.mac.is_some() && first.host_interface.unwrap().starts_with("veth"));
        serve_tcp(&a.netns, 80);
        serve_tcp(&node.world(), 80);
        assert_eq!(
            inside(&b.netns, || call_tcp(ip("10.77.0.2"), 80)).unwrap(),
            second.ips[0]
        );
        assert_eq!(
            inside(&a.netns, || call_tcp(ip("127.0.0.1"), 80)).unwrap(),
            ip("127.0.0.1")
        );
        assert_eq!(
            inside(&a.netns, || call_tcp(ip(WORLD), 80)).unwrap(),
            ip(NODE)
        );
        inside(&node.world(), || call_tcp(ip(NODE), 8080)).expect("host port");
        std::net::TcpListener::bind("0.0.0.0:8080").expect_err("the port is held for the pod");
        let mut other = node.pod("other");
        other.port_mappings = a.port_mappings.clone();
        let refused = network.attach(other).await.unwrap_err();
        let cause = std::error::Error::source(&refused).unwrap().to_string();
        assert_eq!(
            cause,
            "host port tcp/8080 is taken by a program on the node"
        );
        network.attach(node.pod("c")).await.unwrap();
        assert_eq!(leases(&node), 6);
        // Once with its namespace, once after it is gone, once by the record alone, once again.
        let record = serde_json::to_string(&second).unwrap();
        network
            .detach(detach_request(&b, &serde_json::from_str(&record).unwrap()))
            .await
            .unwrap();
        netns::unpin(&a.netns).unwrap();
        let mut gone = detach_request(&a, &second);
        gone.netns = None;
        gone.attachment = None;
        network.detach(gone.clone()).await.unwrap();
        network.detach(gone).await.unwrap();
        std::net::TcpListener::bind("0.0.0.0:8080").expect("the port is free again");
        network.gc(&[]).await.unwrap();
        assert_eq!(leases(&node), 0);
        let rules = run("iptables-save -t nat 2>/dev/null; nft list ruleset");
        // Of "a" the bridge plugin leaves its masquerading: it looks for addresses in the namespace.
        assert!(
            !rules.contains("10.77.0.3") && !rules.contains("8080"),
            "{rules}"
        );
    });
}

#[test]
fn macvlan_and_a_second_network() {
    on_node(|node| async move {
        need_plugins();
        let macvlan = r#"{"cniVersion": "1.0.0", "name": "outer", "type": "macvlan",
            "master": "ext0", "mode": "bridge",
            "ipam": {"type": "host-local", "dataDir": "IPAM-DATA",
                     "ranges": [[{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100"}]]}}"#;
        write_conf(&node, "10-outer.conf", macvlan);
        write_conf(&node, "20-test.conflist", BRIDGE);
        let mut config = config(&node, Mode::Auto);
        config.cni_max_conf = 0;
        let network = Network::open(config).await.unwrap();
        let pod = node.pod("a");
        let attachment = network.attach(pod.clone()).await.unwrap();
        assert_eq!(attachment.ips, ["192.0.2.100".parse::<IpAddr>().unwrap()]);
        assert_eq!(attachment.cni.len(), 2);
        serve_tcp(&node.world(), 80);
        assert_eq!(
            inside(&pod.netns, || call_tcp(ip(WORLD), 80)).unwrap(),
            attachment.ips[0]
        );
        let shown = run(&format!("nsenter --net={} ip -o addr", pod.netns.display()));
        assert!(
            shown.contains("eth1") && shown.contains("10.77.0.2"),
            "{shown}"
        );
        network
            .detach(detach_request(&pod, &attachment))
            .await
            .unwrap();
        let shown = run(&format!("nsenter --net={} ip -o link", pod.netns.display()));
        assert!(!shown.contains("eth"), "{shown}");
    });
}

#[test]
fn auto_is_builtin_until_a_configuration_was_seen() {
    on_node(|node| async move {
        write_plugin(&node, "scripted", RESULT);
        let config = config(&node, Mode::Auto);
        let network = Network::open(config.clone()).await.unwrap();
        assert_eq!(network.status().mode, Provider::Builtin);
        let (a, b) = (node.pod("a"), node.pod("b"));
        let builtin = network.attach(a.clone()).await.unwrap();
        assert_eq!(builtin.provider, Provider::Builtin);
        write_conf(
            &node,
            "10.conf",
            r#"{"cniVersion":"1.0.0","name":"n","type":"scripted"}"#,
        );
        eventually("CNI is used", || {
            let status = network.status();
            status.mode == Provider::Cni && status.ready
        })
        .await;
        let cni = network.attach(b.clone()).await.unwrap();
        assert_eq!(cni.provider, Provider::Cni);
        std::fs::remove_file(node.path("net.d/10.conf")).unwrap();
        eventually("CNI is not ready", || !network.status().ready).await;
        drop(network);
        let network = Network::open(config).await.unwrap();
        assert_eq!(
            (network.status().mode, network.status().ready),
            (Provider::Cni, false)
        );
        network.attach(node.pod("c")).await.unwrap_err();
        // Each goes by what made it.
        log(&node);
        network.detach(detach_request(&a, &builtin)).await.unwrap();
        assert_eq!(log(&node), [""; 0]);
        network.detach(detach_request(&b, &cni)).await.unwrap();
        assert_eq!(log(&node), ["DEL scripted eth0 result"]);
    });
}

#[test]
fn a_handlers_own_configurations_are_for_its_pods() {
    on_node(|node| async move {
        write_plugin(&node, "scripted", RESULT);
        let conf_dir = node.path("fast.d");
        let folder = CniFolder {
            conf_dir: conf_dir.clone(),
            max_conf: 2,
        };
        let mut config = config(&node, Mode::Auto);
        config.handlers.insert("fast".to_owned(), folder);
        let network = Network::open(config.clone()).await.unwrap();
        let mut a = node.pod("a");
        a.handler = "fast".to_owned();
        let refused = network.attach(a.clone()).await.unwrap_err();
        let cause = std::error::Error::source(&refused).unwrap().to_string();
        assert!(cause.contains("fast.d"), "{cause}");
        for name in ["one", "two", "three"] {
            let text = format!(r#"{{"cniVersion":"1.0.0","name":"{name}","type":"scripted"}}"#);
            std::fs::write(conf_dir.join(format!("{name}.conf")), text).unwrap();
        }
        let mut attached = network.attach(a.clone()).await;
        for _ in 0..100 {
            if attached.is_ok() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            attached = network.attach(a.clone()).await;
        }
        let by_cni = attached.unwrap();
        let names: Vec<_> = by_cni
            .cni
            .iter()
            .map(|it| it.conf["name"].clone())
            .collect();
        assert_eq!(names, ["one", "three"]);
        let b = node.pod("b");
        let builtin = network.attach(b.clone()).await.unwrap();
        assert_eq!(builtin.provider, Provider::Builtin, "other pods");

        // After a restart without the handler its pods are taken down all the same.
        drop(network);
        config.handlers.clear();
        let network = Network::open(config).await.unwrap();
        assert_eq!(network.status().mode, Provider::Builtin, "not seen by auto");
        log(&node);
        network.detach(detach_request(&a, &by_cni)).await.unwrap();
        assert_eq!(
            log(&node),
            ["DEL scripted eth1 result", "DEL scripted eth0 result"]
        );
        network.detach(detach_request(&b, &builtin)).await.unwrap();
    });
}

#[test]
fn a_chain_is_undone_past_broken_plugins() {
    on_node(|node| async move {
        write_plugin(&node, "first", RESULT);
        write_plugin(
            &node,
            "broken",
            "echo '{\"code\":11,\"msg\":\"no luck\"}'; exit 1",
        );
        write_plugin(&node, "last", RESULT);
        let list = r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"first"},{"type":"broken"},{"type":"last"}]}"#;
        write_conf(&node, "10.conflist", list);
        let network = Network::open(config(&node, Mode::Cni)).await.unwrap();
        let pod = node.pod("a");
        let error = network.attach(pod.clone()).await.unwrap_err();
        let mut text = String::new();
        let mut next: Option<&dyn std::error::Error> = Some(&error);
        while let Some(error) = next {
            text.push_str(&format!("{error}: "));
            next = error.source();
        }
        assert!(
            text.contains("CNI plugin broken failed its ADD: no luck"),
            "{text}"
        );
        let calls = [
            "ADD first eth0 none",
            "ADD broken eth0 result",
            "DEL last eth0 none",
            "DEL broken eth0 none",
            "DEL first eth0 none",
        ];
        assert_eq!(log(&node), calls);
        // The broken DEL is tried again as long as the namespace is there.
        let mut request = detach_request(&pod, &network_attachment());
        request.attachment = None;
        network.detach(request.clone()).await.unwrap_err();
        assert_eq!(log(&node), calls[2..]);
        request.netns = None;
        network.detach(request.clone()).await.unwrap();
        assert_eq!(log(&node).len(), 3);
        network.detach(request).await.unwrap();
        assert_eq!(log(&node), [""; 0]);
    });
}

fn network_attachment() -> joey_network::Attachment {
    serde_json::from_str(r#"{"provider":"cni","interface":"eth0","ips":[]}"#).unwrap()
}

#[test]
fn plugins_are_told_what_they_declare() {
    on_node(|node| async move {
        write_plugin(&node, "scripted", RESULT);
        let conf = r#"{"cniVersion":"1.0.0","name":"n","type":"scripted","capabilities":{"portMappings":true,"bandwidth":true,"ips":true,"mac":true,"dns":true,"cgroupPath":true,"io.kubernetes.cri.pod-annotations":true}}"#;
        write_conf(&node, "10.conf", conf);
        let network = Network::open(config(&node, Mode::Cni)).await.unwrap();
        let mut pod = AttachRequest {
            port_mappings: vec![port(Protocol::Tcp, 8080, 80), port(Protocol::Tcp, 0, 81)],
            ips: vec![ip("10.7.0.9")],
            mac: Some("02:00:00:00:00:09".to_owned()),
            cgroup_parent: "/kubepods/pod1".to_owned(),
            ..node.pod("a")
        };
        let bandwidth = "kubernetes.io/egress-bandwidth".to_owned();
        pod.annotations.insert(bandwidth.clone(), "10M".to_owned());
        network.attach(pod.clone()).await.unwrap();
        let input = std::fs::read_to_string(node.path("log.scripted.ADD")).unwrap();
        let input: serde_json::Value = serde_json::from_str(&input).unwrap();
        let told = &input["runtimeConfig"];
        assert_eq!(told["portMappings"].as_array().unwrap().len(), 1);
        assert_eq!(told["bandwidth"]["egressRate"], 10_000_000);
        assert_eq!(told["ips"][0], "10.7.0.9");
        assert_eq!(told["mac"], "02:00:00:00:00:09");
        assert_eq!(told["cgroupPath"], "/kubepods/pod1");
        assert_eq!(told["io.kubernetes.cri.pod-annotations"][&bandwidth], "10M");
        let args = std::fs::read_to_string(node.path("log.args")).unwrap();
        assert!(
            args.contains("K8S_POD_NAMESPACE=default;K8S_POD_NAME=name-a"),
            "{args}"
        );
        let mut bad = node.pod("b");
        bad.annotations.insert(bandwidth, "10 Mbit".to_owned());
        network.attach(bad).await.unwrap_err();
    });
}

#[test]
fn status_and_gc_of_version_1_1() {
    on_node(|node| async move {
        let busy = node.path("busy");
        let body = format!(
            "[ \"$CNI_COMMAND\" = STATUS ] && [ -e {} ] && echo '{{\"code\":50,\"msg\":\"not yet\"}}' && exit 1\n{RESULT}",
            busy.display()
        );
        write_plugin(&node, "scripted", &body);
        std::fs::write(&busy, "").unwrap();
        write_conf(
            &node,
            "10.conf",
            r#"{"cniVersion":"1.1.0","name":"n","type":"scripted"}"#,
        );
        let network = Network::open(config(&node, Mode::Cni)).await.unwrap();
        let status = network.status();
        assert!(
            !status.ready && status.message.contains("not yet"),
            "{}",
            status.message
        );
        std::fs::remove_file(&busy).unwrap();
        ready(&network).await;
        let pod = node.pod("a");
        network.attach(pod.clone()).await.unwrap();
        network.gc(&["a".to_owned()]).await.unwrap();
        let input = std::fs::read_to_string(node.path("log.scripted.GC")).unwrap();
        let input: serde_json::Value = serde_json::from_str(&input).unwrap();
        let valid = serde_json::json!([{"containerID": "a", "ifname": "eth0"}]);
        assert_eq!(input["cni.dev/valid-attachments"], valid);
        log(&node);
        network.gc(&[]).await.unwrap();
        let calls = log(&node);
        assert!(
            calls.contains(&"DEL scripted eth0 result".to_owned()),
            "{calls:?}"
        );
    });
}
