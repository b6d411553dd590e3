//! Records for tests.

use joey_network::{Attachment, Provider};
use joey_runtime::model::{
    ContainerConfig, ContainerRecord, IdMapping, ImageIdentity, Launch, Mount, MountSource,
    NamespaceMode, PodConfig, PodRecord, PodState, Propagation, ResolvedUser, Started,
    UserNamespace,
};

/// A ready pod with every field set that answers show.
pub(crate) fn pod_record() -> PodRecord {
    let map = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    let range = |host_id| {
        vec![IdMapping {
            host_id,
            container_id: 0,
            size: 10,
        }]
    };
    PodRecord {
        version: 1,
        id: "abc".into(),
        config: PodConfig {
            name: "web".into(),
            namespace: "shop".into(),
            uid: "u-1".into(),
            attempt: 3,
            labels: map("app", "web"),
            annotations: map("note", " as given\n"),
            runtime_handler: "fast".into(),
            network: NamespaceMode::Pod,
            pid: NamespaceMode::Container,
            ipc: NamespaceMode::Node,
            user_namespace: Some(UserNamespace {
                uids: range(5),
                gids: range(6),
            }),
            ..PodConfig::default()
        },
        overlays: vec![],
        state: PodState::Ready,
        created_at: 77,
        network: Some(Attachment {
            provider: Provider::Builtin,
            interface: "eth0".into(),
            host_interface: None,
            ips: vec!["10.88.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            mac: None,
            gateways: vec![],
            port_mappings: vec![],
            cni: vec![],
        }),
        shim: None,
        init_pid: 0,
        boot_id: String::new(),
        cause: None,
    }
}

/// A running container with every field set that answers show.
pub(crate) fn container_record() -> ContainerRecord {
    let map = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    // A group of no hierarchy: only its name is used here.
    let cgroup =
        serde_json::json!({ "layout": { "v1": [], "unified": null }, "path": "", "unit": null });
    ContainerRecord {
        version: 1,
        id: "c1".into(),
        pod_id: "p1".into(),
        config: ContainerConfig {
            name: "app".into(),
            attempt: 2,
            image: ImageIdentity {
                id: "sha256:1".into(),
                reference: "sha256:1".into(),
                user_specified: "shop/app:1".into(),
                runtime_handler: String::new(),
            },
            labels: map("app", "web"),
            annotations: map("note", " as given\n"),
            log_path: Some("/var/log/pods/web/app/0.log".into()),
            resources: joey_cgroup::Resources {
                cpu_shares: Some(10),
                ..Default::default()
            },
            oom_score_adj: Some(7),
            mounts: vec![Mount {
                source: MountSource::Host("/srv".into()),
                destination: "/data".into(),
                readonly: false,
                recursive_readonly: false,
                selinux_relabel: false,
                propagation: Propagation::Private,
                uids: vec![],
                gids: vec![],
            }],
            ..ContainerConfig::default()
        },
        created_at: 10,
        cgroup: serde_json::from_value(cgroup).unwrap(),
        started: Some(Started {
            pid: 42,
            start_ticks: 1,
            at: 20,
            user: ResolvedUser {
                uid: 5,
                gid: 6,
                groups: vec![6, 7],
            },
        }),
        poststop_done: false,
        unsynced: false,
        asked: None,
        exit: None,
        overlays: vec![],
        launch: Launch {
            stop_signal: 3,
            ..Launch::default()
        },
        lowers: vec![],
        edits: Default::default(),
        mounted_images: Default::default(),
    }
}
