use joey_runtime::model::{IdMapping, SecurityProfile};

use super::*;

fn mapping(host_id: u32, container_id: u32, length: u32) -> cri::IdMapping {
    cri::IdMapping {
        host_id,
        container_id,
        length,
    }
}

fn userns(mode: cri::NamespaceMode) -> cri::UserNamespace {
    cri::UserNamespace {
        mode: mode as i32,
        uids: vec![mapping(1000, 0, 65536)],
        gids: vec![mapping(2000, 0, 65536)],
    }
}

fn minimal() -> cri::PodSandboxConfig {
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: "web".into(),
            uid: "u-1".into(),
            namespace: "shop".into(),
            attempt: 3,
        }),
        ..Default::default()
    }
}

fn full() -> cri::PodSandboxConfig {
    let map = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    cri::PodSandboxConfig {
        hostname: "web-0".into(),
        log_directory: "/var/log/pods/web".into(),
        dns_config: Some(cri::DnsConfig {
            servers: vec!["10.96.0.10".into()],
            searches: vec!["svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        }),
        port_mappings: vec![cri::PortMapping {
            protocol: 1,
            container_port: 53,
            host_port: 5353,
            host_ip: "127.0.0.1".into(),
        }],
        labels: map("app", "web"),
        annotations: map("note", " as \u{0} given\n"),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: "/kubepods/burstable/podu-1".into(),
            security_context: Some(cri::LinuxSandboxSecurityContext {
                namespace_options: Some(cri::NamespaceOption {
                    network: 2,
                    pid: 1,
                    ipc: 2,
                    target_id: String::new(),
                    userns_options: Some(userns(cri::NamespaceMode::Pod)),
                }),
                selinux_options: Some(cri::SeLinuxOption {
                    level: "s0".into(),
                    ..Default::default()
                }),
                run_as_user: Some(cri::Int64Value { value: 1 }),
                run_as_group: Some(cri::Int64Value { value: 2 }),
                readonly_rootfs: true,
                supplemental_groups: vec![4],
                privileged: true,
                seccomp: Some(cri::SecurityProfile::default()),
                apparmor: Some(cri::SecurityProfile {
                    profile_type: 1,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            sysctls: map("net.core.somaxconn", "1024"),
            overhead: Some(cri::LinuxContainerResources {
                cpu_shares: 10,
                ..Default::default()
            }),
            resources: Some(cri::LinuxContainerResources {
                cpu_shares: 20,
                ..Default::default()
            }),
        }),
        ..minimal()
    }
}

#[test]
fn every_field_is_mapped() {
    let mapped = pod(full(), "fast".into()).unwrap();
    let range = |host_id| {
        vec![IdMapping {
            host_id,
            container_id: 0,
            size: 65536,
        }]
    };
    let map = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    let shares = |shares| {
        Some(joey_cgroup::Resources {
            cpu_shares: Some(shares),
            ..Default::default()
        })
    };
    assert_eq!(
        mapped,
        PodConfig {
            owner: Owner::Cri,
            name: "web".into(),
            namespace: "shop".into(),
            uid: "u-1".into(),
            attempt: 3,
            hostname: "web-0".into(),
            log_directory: "/var/log/pods/web".into(),
            dns: Some(DnsConfig {
                servers: vec!["10.96.0.10".into()],
                searches: vec!["svc.cluster.local".into()],
                options: vec!["ndots:5".into()],
            }),
            port_mappings: vec![PortMapping {
                protocol: Protocol::Udp,
                container_port: 53,
                host_port: 5353,
                host_ip: "127.0.0.1".into(),
            }],
            labels: map("app", "web"),
            annotations: map("note", " as \u{0} given\n"),
            runtime_handler: "fast".into(),
            network: NamespaceMode::Node,
            isolated: false,
            pid: NamespaceMode::Container,
            ipc: NamespaceMode::Node,
            user_namespace: Some(UserNamespace {
                uids: range(1000),
                gids: range(2000)
            }),
            cgroup_parent: "/kubepods/burstable/podu-1".into(),
            sysctls: map("net.core.somaxconn", "1024"),
            security: PodSecurity {
                privileged: true,
                readonly_rootfs: true,
                selinux: Some(joey_runtime::model::SelinuxOptions {
                    level: "s0".into(),
                    ..Default::default()
                }),
                seccomp: SecurityProfile::RuntimeDefault,
                apparmor: SecurityProfile::Unconfined,
                supplemental_groups: vec![4],
            },
            overhead: shares(10),
            resources: shares(20),
        }
    );
}

#[test]
fn what_is_not_given_is_the_pods_own() {
    let mapped = pod(minimal(), String::new()).unwrap();
    assert_eq!(mapped.network, NamespaceMode::Pod);
    assert_eq!(mapped.pid, NamespaceMode::Pod);
    assert_eq!(mapped.ipc, NamespaceMode::Pod);
    assert_eq!(mapped.user_namespace, None);
    assert_eq!(mapped.dns, None);
    assert_eq!(mapped.overhead, None);
}

#[test]
fn host_ports_of_zero_and_less_are_none() {
    for host_port in [0, -1, i32::MIN] {
        let given = cri::PortMapping {
            container_port: 80,
            host_port,
            ..Default::default()
        };
        assert_eq!(port(&given).unwrap().host_port, 0);
    }
}

#[test]
fn only_pod_and_node_user_namespaces_are_taken() {
    use cri::NamespaceMode as Mode;
    assert!(user_namespace(Some(&userns(Mode::Pod))).unwrap().is_some());
    let node = cri::UserNamespace {
        mode: Mode::Node as i32,
        ..Default::default()
    };
    assert_eq!(user_namespace(Some(&node)).unwrap(), None);
    let two = vec![mapping(1, 0, 10), mapping(20, 10, 10)];
    let refused = [
        userns(Mode::Node),
        userns(Mode::Container),
        userns(Mode::Target),
        cri::UserNamespace {
            mode: 9,
            ..Default::default()
        },
        cri::UserNamespace {
            mode: Mode::Pod as i32,
            ..Default::default()
        },
        cri::UserNamespace {
            gids: vec![],
            ..userns(Mode::Pod)
        },
        cri::UserNamespace {
            uids: two,
            ..userns(Mode::Pod)
        },
        cri::UserNamespace {
            uids: vec![mapping(1000, 1, 10)],
            ..userns(Mode::Pod)
        },
        cri::UserNamespace {
            uids: vec![mapping(1000, 0, 0)],
            ..userns(Mode::Pod)
        },
        cri::UserNamespace {
            uids: vec![mapping(u32::MAX, 0, 2)],
            ..userns(Mode::Pod)
        },
    ];
    for given in refused {
        assert!(user_namespace(Some(&given)).is_err(), "{given:?}");
    }
}

#[test]
fn bad_pods_are_refused() {
    type Change = fn(&mut cri::PodSandboxConfig);
    fn context(pod: &mut cri::PodSandboxConfig) -> &mut cri::LinuxSandboxSecurityContext {
        pod.linux
            .as_mut()
            .unwrap()
            .security_context
            .as_mut()
            .unwrap()
    }
    fn options(pod: &mut cri::PodSandboxConfig) -> &mut cri::NamespaceOption {
        context(pod).namespace_options.as_mut().unwrap()
    }
    let refused: [(&str, Change); 18] = [
        ("no metadata", |pod| pod.metadata = None),
        ("no name", |pod| pod.metadata.as_mut().unwrap().name.clear()),
        ("no uid", |pod| pod.metadata.as_mut().unwrap().uid.clear()),
        ("no namespace", |pod| {
            pod.metadata.as_mut().unwrap().namespace.clear();
        }),
        ("long hostname", |pod| pod.hostname = "h".repeat(65)),
        ("odd hostname", |pod| pod.hostname = "../h".into()),
        ("dns on two lines", |pod| {
            pod.dns_config.as_mut().unwrap().searches[0] = "a\nnameserver 6.6.6.6".into();
        }),
        ("protocol", |pod| pod.port_mappings[0].protocol = 3),
        ("host port", |pod| pod.port_mappings[0].host_port = 65536),
        ("container port", |pod| {
            pod.port_mappings[0].container_port = -1;
        }),
        ("no container port", |pod| {
            pod.port_mappings[0].container_port = 0;
        }),
        ("host address", |pod| {
            pod.port_mappings[0].host_ip = "localhost".into();
        }),
        ("network", |pod| options(pod).network = 1),
        ("pid", |pod| options(pod).pid = 3),
        ("ipc", |pod| options(pod).ipc = 7),
        ("group without user", |pod| context(pod).run_as_user = None),
        ("groups policy", |pod| {
            context(pod).supplemental_groups_policy = 2;
        }),
        ("seccomp", |pod| {
            context(pod).seccomp = Some(cri::SecurityProfile {
                profile_type: 2,
                ..Default::default()
            });
        }),
    ];
    for (what, change) in refused {
        let mut given = full();
        change(&mut given);
        assert!(pod(given, String::new()).is_err(), "{what}");
    }
}
