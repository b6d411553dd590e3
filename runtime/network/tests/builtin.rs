//! The built-in network between real namespaces.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

mod common;

use common::{
    NODE, NODE6, WORLD, WORLD6, call_tcp, call_udp, detach_request, eventually, inside, ip,
    on_node, port, run, serve_tcp, serve_udp,
};
use joey_network::{DetachRequest, IpNet, Network, Protocol, netns};

fn pod_range(address: std::net::IpAddr) -> bool {
    let ranges: [IpNet; 2] = [
        "10.88.0.0/16".parse().unwrap(),
        "fd00:88::/64".parse().unwrap(),
    ];
    ranges.iter().any(|range| range.contains(address))
}

#[test]
fn pods_reach_each_other_the_node_and_the_world() {
    on_node(|node| async move {
        let network = Network::open(node.config()).await.unwrap();
        assert!(network.status().ready, "{:?}", network.status());
        let (a, b) = (node.pod("a"), node.pod("b"));
        let first = network.attach(a.clone()).await.unwrap();
        let second = network.attach(b.clone()).await.unwrap();
        assert_eq!(first.ips, [ip("10.88.0.2"), ip("fd00:88::2")]);
        assert_eq!(first.gateways, [ip("10.88.0.1"), ip("fd00:88::1")]);
        for pod in [&a, &b] {
            serve_tcp(&pod.netns, 80);
        }
        serve_tcp(&node.world(), 80);
        serve_tcp(std::path::Path::new("/proc/thread-self/ns/net"), 80);
        for (mine, other) in first.ips.iter().zip(&second.ips) {
            // Pod to pod, with its own address; pod to itself; node to pod.
            assert_eq!(inside(&a.netns, || call_tcp(*other, 80)).unwrap(), *mine);
            assert_eq!(inside(&a.netns, || call_tcp(*mine, 80)).unwrap(), *mine);
            assert!(call_tcp(*mine, 80).is_ok_and(pod_range));
        }
        for (gateway, mine) in first.gateways.iter().zip(&first.ips) {
            assert_eq!(inside(&a.netns, || call_tcp(*gateway, 80)).unwrap(), *mine);
        }
        assert_eq!(
            inside(&a.netns, || call_tcp(ip(NODE), 80)).unwrap(),
            ip("10.88.0.2")
        );
        // The world has no route to pods: only the node's address reaches it.
        assert_eq!(
            inside(&a.netns, || call_tcp(ip(WORLD), 80)).unwrap(),
            ip(NODE)
        );
        assert_eq!(
            inside(&a.netns, || call_tcp(ip(WORLD6), 80)).unwrap(),
            ip(NODE6)
        );
        // An address of the range that no pod has is refused, not waited for.
        inside(&a.netns, || call_tcp(ip("10.88.9.9"), 80)).unwrap_err();
        let stats = netns::interface_stats(&a.netns).unwrap();
        assert_eq!(stats.len(), 1);
        assert_eq!(stats[0].name, "eth0");
        assert!(stats[0].rx_bytes > 0 && stats[0].tx_packets > 0);
    });
}

#[test]
fn host_ports_are_reached_from_everywhere() {
    on_node(|node| async move {
        let network = Network::open(node.config()).await.unwrap();
        let (mut a, b) = (node.pod("a"), node.pod("b"));
        a.port_mappings = vec![
            port(Protocol::Tcp, 8080, 80),
            port(Protocol::Udp, 5353, 53),
            port(Protocol::Tcp, 0, 9),
        ];
        let attachment = network.attach(a.clone()).await.unwrap();
        network.attach(b.clone()).await.unwrap();
        assert_eq!(attachment.port_mappings.len(), 2);
        serve_tcp(&a.netns, 80);
        serve_udp(&a.netns, 53);
        for (node_ip, world_ip) in [(NODE, WORLD), (NODE6, WORLD6)] {
            let from_world = inside(&node.world(), || call_tcp(ip(node_ip), 8080));
            assert_eq!(
                from_world.unwrap(),
                ip(world_ip),
                "the caller's address is kept"
            );
            let from_world = inside(&node.world(), || call_udp(ip(node_ip), 5353));
            assert_eq!(from_world.unwrap(), ip(world_ip));
            call_tcp(ip(node_ip), 8080).expect("from the node by its address");
            inside(&b.netns, || call_tcp(ip(node_ip), 8080)).expect("from another pod");
            inside(&a.netns, || call_tcp(ip(node_ip), 8080)).expect("from the pod itself");
        }
        call_tcp(ip("127.0.0.1"), 8080).expect("from the node by 127.0.0.1");
        call_udp(ip("127.0.0.1"), 5353).expect("from the node by 127.0.0.1");
        network
            .detach(detach_request(&a, &attachment))
            .await
            .unwrap();
        inside(&node.world(), || call_tcp(ip(NODE), 8080)).unwrap_err();
    });
}

#[test]
fn a_taken_host_port_is_named() {
    on_node(|node| async move {
        let network = Network::open(node.config()).await.unwrap();
        let (mut a, mut b) = (node.pod("a"), node.pod("b"));
        a.port_mappings = vec![port(Protocol::Tcp, 8080, 80)];
        b.port_mappings = vec![port(Protocol::Tcp, 8081, 80), port(Protocol::Tcp, 8080, 81)];
        let attachment = network.attach(a.clone()).await.unwrap();
        let error = network.attach(b.clone()).await.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(cause, "host port tcp/8080 is taken by pod a");
        network
            .detach(detach_request(&a, &attachment))
            .await
            .unwrap();
        let listener = std::net::TcpListener::bind("0.0.0.0:8081").unwrap();
        let error = network.attach(b.clone()).await.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(
            cause,
            "host port tcp/8081 is taken by a program on the node"
        );
        drop(listener);
        network.attach(b.clone()).await.unwrap();
        std::net::TcpListener::bind("0.0.0.0:8081").expect_err("the port is held for the pod");
    });
}

#[test]
fn a_pod_can_not_reach_the_nodes_loopback() {
    on_node(|node| async move {
        let network = Network::open(node.config()).await.unwrap();
        let mut a = node.pod("a");
        a.port_mappings = vec![port(Protocol::Tcp, 8080, 80)];
        let attachment = network.attach(a.clone()).await.unwrap();
        serve_tcp(std::path::Path::new("/proc/thread-self/ns/net"), 9000);
        let link = attachment.host_interface.unwrap();
        let setting = format!("/proc/sys/net/ipv4/conf/{link}/route_localnet");
        assert_eq!(std::fs::read_to_string(setting).unwrap().trim(), "1");
        let inside_pod = format!("nsenter --net={}", a.netns.display());
        // As CVE-2020-8558 does: send to 127.0.0.1 over the wire.
        run(&format!(
            "{inside_pod} sh -c 'ip addr del 127.0.0.1/8 dev lo && ip route flush table local && ip route add local 10.88.0.2 dev eth0 table local && ip route add 127.0.0.1 via 10.88.0.1 dev eth0 onlink && echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet'"
        ));
        inside(&a.netns, || call_tcp(ip("127.0.0.1"), 9000)).unwrap_err();
        inside(&a.netns, || call_tcp(ip(NODE), 9000)).expect("other addresses are reached");
    });
}

#[test]
fn detach_leaves_nothing_and_may_be_repeated() {
    on_node(|node| async move {
        let network = Network::open(node.config()).await.unwrap();
        let look = || {
            run(
                "ip -o link; ip route; ip -6 route; ip neigh | grep -v ext0 || true; nft list ruleset",
            )
        };
        let before = look();
        let mut a = node.pod("a");
        a.port_mappings = vec![port(Protocol::Tcp, 8080, 80), port(Protocol::Udp, 8080, 80)];
        let attachment = network.attach(a.clone()).await.unwrap();
        assert_ne!(look(), before);
        network
            .detach(detach_request(&a, &attachment))
            .await
            .unwrap();
        eventually("the interface goes", || look() == before).await;
        network
            .detach(detach_request(&a, &attachment))
            .await
            .unwrap();
        let leases = std::fs::read_dir(node.path("state/leases"))
            .unwrap()
            .count();
        assert_eq!(leases, 0);
        // The namespace is gone first, the attachment not known.
        let again = network.attach(a.clone()).await.unwrap();
        assert_eq!(again.ips[0], ip("10.88.0.3"));
        netns::unpin(&a.netns).unwrap();
        netns::unpin(&a.netns).unwrap();
        let request = DetachRequest {
            pod_id: "a".to_owned(),
            ..DetachRequest::default()
        };
        network.detach(request).await.unwrap();
        eventually("the interface goes", || look() == before).await;
    });
}

#[test]
fn a_failed_attach_leaves_nothing() {
    on_node(|node| async move {
        let network = Network::open(node.config()).await.unwrap();
        let before = run("ip -o link; ip route; nft list ruleset");
        let mut a = node.pod("a");
        a.port_mappings = vec![port(Protocol::Tcp, 8080, 80)];
        // The name of the pod's interface is taken inside.
        run(&format!(
            "nsenter --net={} ip link add eth0 type bridge",
            a.netns.display()
        ));
        network.attach(a.clone()).await.unwrap_err();
        let mut missing = a.clone();
        missing.netns = node.path("nowhere");
        network.attach(missing).await.unwrap_err();
        assert_eq!(run("ip -o link; ip route; nft list ruleset"), before);
        run(&format!(
            "nsenter --net={} ip link del eth0",
            a.netns.display()
        ));
        network.attach(a.clone()).await.unwrap();
        // Attached twice: as once.
        let twice = network.attach(a).await.unwrap();
        assert_eq!(run("ip -o link | grep -c ' jy'").trim(), "1");
        assert_eq!(twice.mac.as_deref(), Some("0a:58:0a:58:00:04"));
    });
}

#[test]
fn flushed_rules_come_back() {
    on_node(|node| async move {
        let network = Network::open(node.config()).await.unwrap();
        let mut a = node.pod("a");
        a.port_mappings = vec![port(Protocol::Tcp, 8080, 80)];
        network.attach(a.clone()).await.unwrap();
        let rules = run("nft list ruleset");
        assert!(rules.contains("tcp . 8080"), "{rules}");
        for flush in [
            "nft flush ruleset",
            "nft flush table inet joey",
            "nft delete table inet joey",
        ] {
            run(flush);
            eventually(flush, || run("nft list ruleset") == rules).await;
        }
    });
}

#[test]
fn a_restart_keeps_leases_ports_and_rules() {
    on_node(|node| async move {
        let mut config = node.config();
        config.subnets.clear();
        let network = Network::open(config.clone()).await.unwrap();
        let (mut a, b) = (node.pod("a"), node.pod("b"));
        a.port_mappings = vec![port(Protocol::Tcp, 8080, 80)];
        let first = network.attach(a.clone()).await.unwrap();
        serve_tcp(&a.netns, 80);
        let rules = run("nft list ruleset");
        let sockets = network.take_sockets("a");
        drop(network);
        std::net::TcpListener::bind("0.0.0.0:8080").expect_err("the taken sockets hold the port");
        drop(sockets);
        run("nft flush ruleset");
        let network = Network::open(config).await.unwrap();
        assert_eq!(run("nft list ruleset"), rules);
        network.hold_ports("a", &first).unwrap();
        std::net::TcpListener::bind("0.0.0.0:8080").expect_err("the port is held again");
        inside(&node.world(), || call_tcp(ip(NODE), 8080)).unwrap();
        let second = network.attach(b.clone()).await.unwrap();
        assert_ne!(first.ips, second.ips);
        network.gc(&["b".to_owned()]).await.unwrap();
        assert_eq!(run("ip -o link | grep -c ' jy'").trim(), "1");
        assert!(!run("nft list ruleset").contains("8080"));
    });
}

#[test]
fn fixed_addresses_and_the_clusters_ranges_are_used() {
    on_node(|node| async move {
        let network = Network::open(node.config()).await.unwrap();
        let (mut a, b) = (node.pod("a"), node.pod("b"));
        a.ips = vec![ip("10.88.7.7")];
        a.mac = Some("02:00:00:00:00:07".to_owned());
        let first = network.attach(a.clone()).await.unwrap();
        assert_eq!(first.ips, [ip("10.88.7.7"), ip("fd00:88::2")]);
        let shown = run(&format!(
            "nsenter --net={} ip link show eth0",
            a.netns.display()
        ));
        assert!(shown.contains("02:00:00:00:00:07"), "{shown}");
        let ranges = ["10.99.0.0/24".to_owned(), "fd00:99::/64".to_owned()];
        network.set_pod_cidr(&ranges).await.unwrap();
        let second = network.attach(b.clone()).await.unwrap();
        assert_eq!(second.ips, [ip("10.99.0.2"), ip("fd00:99::2")]);
        serve_tcp(&a.netns, 80);
        serve_tcp(&node.world(), 80);
        assert_eq!(
            inside(&b.netns, || call_tcp(ip("10.88.7.7"), 80)).unwrap(),
            ip("10.99.0.2")
        );
        for pod in [&a, &b] {
            assert_eq!(
                inside(&pod.netns, || call_tcp(ip(WORLD), 80)).unwrap(),
                ip(NODE)
            );
        }
        network
            .set_pod_cidr(&["10.99.0.0/24".to_owned(), "10.98.0.0/24".to_owned()])
            .await
            .unwrap_err();
        network
            .set_pod_cidr(&["10.99.0.0".to_owned()])
            .await
            .unwrap_err();
        drop(network);
        let network = Network::open(node.config()).await.unwrap();
        let third = network.attach(node.pod("c")).await.unwrap();
        assert_eq!(third.ips[0], ip("10.99.0.3"), "ranges survive a restart");
    });
}

#[test]
fn services_by_others_rules_work_on_the_same_node() {
    on_node(|node| async move {
        let network = Network::open(node.config()).await.unwrap();
        let (a, b) = (node.pod("a"), node.pod("b"));
        let first = network.attach(a.clone()).await.unwrap();
        let second = network.attach(b.clone()).await.unwrap();
        serve_tcp(&a.netns, 80);
        // As kube-proxy does: a virtual address, masqueraded only when a pod reaches itself.
        let (ip_a, ip_b) = (first.ips[0], second.ips[0]);
        run(&format!(
            "nft 'table ip services {{ \
             chain pre {{ type nat hook prerouting priority -100; ip daddr 10.96.0.1 tcp dport 443 dnat to {ip_a}:80; }}; \
             chain out {{ type nat hook output priority -100; ip daddr 10.96.0.1 tcp dport 443 dnat to {ip_a}:80; }}; \
             chain post {{ type nat hook postrouting priority 90; ip saddr {ip_a} ip daddr {ip_a} masquerade; }}; }}'"
        ));
        let service = ip("10.96.0.1");
        assert_eq!(inside(&b.netns, || call_tcp(service, 443)).unwrap(), ip_b);
        inside(&a.netns, || call_tcp(service, 443)).expect("a pod reaches itself by its service");
        call_tcp(service, 443).expect("the node reaches it");
    });
}

#[test]
fn a_host_port_may_be_on_one_address() {
    on_node(|node| async move {
        let network = Network::open(node.config()).await.unwrap();
        let (mut a, mut b) = (node.pod("a"), node.pod("b"));
        let on = |address: &str, container_port| joey_network::PortMapping {
            host_ip: Some(ip(address)),
            ..port(Protocol::Tcp, 8080, container_port)
        };
        a.port_mappings = vec![on("127.0.0.1", 80), on(NODE6, 80)];
        b.port_mappings = vec![on(NODE, 80)];
        network.attach(a.clone()).await.unwrap();
        inside(&node.world(), || call_tcp(ip(NODE), 8080)).unwrap_err();
        network.attach(b.clone()).await.unwrap();
        serve_tcp(&a.netns, 80);
        call_tcp(ip("127.0.0.1"), 8080).unwrap();
        inside(&node.world(), || call_tcp(ip(NODE6), 8080)).unwrap();
        inside(&node.world(), || call_tcp(ip(NODE), 8080)).unwrap_err();
        serve_tcp(&b.netns, 80);
        inside(&node.world(), || call_tcp(ip(NODE), 8080)).unwrap();
    });
}

#[test]
fn a_udp_flow_follows_the_port_to_its_new_pod() {
    on_node(|node| async move {
        let network = Network::open(node.config()).await.unwrap();
        let (mut a, mut b) = (node.pod("a"), node.pod("b"));
        a.port_mappings = vec![port(Protocol::Udp, 5353, 53)];
        b.port_mappings = a.port_mappings.clone();
        let client = inside(&node.world(), || {
            std::net::UdpSocket::bind("0.0.0.0:0").unwrap()
        });
        client
            .set_read_timeout(Some(std::time::Duration::from_millis(500)))
            .unwrap();
        let call = || {
            let mut buffer = [0; 64];
            client.send_to(b"?", (NODE, 5353)).unwrap();
            client.recv(&mut buffer).is_ok()
        };
        assert!(!call());
        let attachment = network.attach(a.clone()).await.unwrap();
        serve_udp(&a.netns, 53);
        assert!(call(), "a flow from before the pod");
        network
            .detach(detach_request(&a, &attachment))
            .await
            .unwrap();
        network.attach(b.clone()).await.unwrap();
        serve_udp(&b.netns, 53);
        assert!(call(), "a flow to the pod before");
    });
}

#[test]
fn a_network_that_can_not_start_says_so_and_tries_again() {
    on_node(|node| async move {
        let mut config = node.config();
        config.bridge = "ext0".to_owned();
        // An interface of that name is there already: it is used as it is, so this starts.
        let network = Network::open(config.clone()).await.unwrap();
        assert!(network.status().ready);
        drop(network);
        let settings = "/proc/sys/net/ipv4";
        std::fs::write(format!("{settings}/ip_forward"), "0").unwrap();
        run(&format!(
            "mount --bind {settings} {settings} && mount -o remount,ro,bind {settings}"
        ));
        let network = Network::open(config).await.unwrap();
        let status = network.status();
        assert!(
            !status.ready && status.message.contains("ip_forward"),
            "{}",
            status.message
        );
        network.attach(node.pod("a")).await.unwrap_err();
        run(&format!("umount {settings}"));
        eventually("what was in the way is gone", || network.status().ready).await;
        network.attach(node.pod("b")).await.unwrap();
    });
}
