use joey_runtime::model::{
    Capabilities, GroupPolicy, PodSecurity, SecurityProfile, SelinuxOptions, User,
};

use super::*;

fn ready_pod() -> PodConfig {
    PodConfig {
        log_directory: "/var/log/pods/web".into(),
        security: PodSecurity {
            privileged: true,
            ..PodSecurity::default()
        },
        ..PodConfig::default()
    }
}

fn map_one(key: &str, value: &str) -> std::collections::HashMap<String, String> {
    [(key.to_owned(), value.to_owned())].into()
}

fn full() -> cri::ContainerConfig {
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: "app".into(),
            attempt: 2,
        }),
        image: Some(cri::ImageSpec {
            image: "sha256:1".into(),
            user_specified_image: "shop/app:1".into(),
            ..Default::default()
        }),
        command: vec!["/bin/app".into()],
        args: vec!["-v".into()],
        working_dir: "/srv".into(),
        envs: vec![cri::KeyValue {
            key: "K".into(),
            value: vec![0xff, 0x3d].into(),
        }],
        mounts: vec![cri::Mount {
            container_path: "/data".into(),
            host_path: "/srv/data".into(),
            ..Default::default()
        }],
        devices: vec![cri::Device {
            host_path: "/dev/fuse".into(),
            ..Default::default()
        }],
        labels: map_one("app", "web"),
        annotations: map_one("note", "as given"),
        log_path: "app/0.log".into(),
        stdin: true,
        stdin_once: true,
        tty: true,
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(cri::LinuxContainerResources {
                cpu_shares: 10,
                oom_score_adj: 1000,
                ..Default::default()
            }),
            security_context: Some(context()),
        }),
        windows: None,
        cdi_devices: vec![cri::CdiDevice {
            name: "vendor.com/gpu=0".into(),
        }],
        stop_signal: cri::Signal::Sigrtminplus3 as i32,
    }
}

fn context() -> cri::LinuxContainerSecurityContext {
    cri::LinuxContainerSecurityContext {
        capabilities: Some(cri::Capability {
            add_capabilities: vec!["NET_ADMIN".into()],
            ..Default::default()
        }),
        privileged: true,
        namespace_options: Some(cri::NamespaceOption {
            pid: 3,
            target_id: "c1".into(),
            ..Default::default()
        }),
        selinux_options: Some(cri::SeLinuxOption {
            role: "r".into(),
            ..Default::default()
        }),
        run_as_user: Some(cri::Int64Value { value: 5 }),
        run_as_group: Some(cri::Int64Value { value: 6 }),
        readonly_rootfs: true,
        supplemental_groups: vec![7],
        supplemental_groups_policy: 1,
        no_new_privs: true,
        masked_paths: vec!["/proc/kcore".into()],
        readonly_paths: vec!["/proc/sys".into()],
        seccomp: Some(cri::SecurityProfile {
            profile_type: 2,
            localhost_ref: "/p.json".into(),
        }),
        apparmor: Some(cri::SecurityProfile {
            profile_type: 1,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn map(config: cri::ContainerConfig) -> Result<ContainerConfig> {
    container(config, &ready_pod(), |name| {
        (name == "sha256:1").then(|| name.to_owned())
    })
}

#[test]
fn every_field_is_mapped() {
    let mapped = map(full()).unwrap();
    assert_eq!((mapped.name.as_str(), mapped.attempt), ("app", 2));
    assert_eq!(
        mapped.image,
        ImageIdentity {
            id: "sha256:1".into(),
            reference: "sha256:1".into(),
            user_specified: "shop/app:1".into(),
            runtime_handler: String::new(),
        }
    );
    assert_eq!(mapped.command, ["/bin/app"]);
    assert_eq!(mapped.args, ["-v"]);
    assert_eq!(mapped.working_dir, "/srv");
    assert_eq!(mapped.env, [("K".to_owned(), vec![0xff, 0x3d])]);
    assert_eq!(mapped.mounts.len(), 1);
    assert_eq!(mapped.devices.len(), 1);
    assert_eq!(mapped.cdi_devices, ["vendor.com/gpu=0"]);
    assert_eq!(mapped.labels["app"], "web");
    assert_eq!(mapped.annotations["note"], "as given");
    assert_eq!(
        mapped.log_path.unwrap().to_str(),
        Some("/var/log/pods/web/app/0.log")
    );
    assert!(mapped.stdin && mapped.stdin_once && mapped.tty);
    assert_eq!(mapped.resources.cpu_shares, Some(10));
    assert_eq!(mapped.oom_score_adj, Some(1000));
    assert_eq!(mapped.pid, PidMode::Target("c1".into()));
    assert_eq!(mapped.stop_signal.as_deref(), Some("SIGRTMIN+3"));
    assert_eq!(
        mapped.security,
        Security {
            privileged: true,
            privileged_without_host_devices: false,
            capabilities: Capabilities {
                add: vec!["NET_ADMIN".into()],
                ..Default::default()
            },
            user: User {
                uid: Some(5),
                name: String::new(),
                gid: Some(6),
                supplemental_groups: vec![7],
                group_policy: GroupPolicy::Strict,
            },
            readonly_rootfs: true,
            no_new_privileges: true,
            masked_paths: vec!["/proc/kcore".into()],
            readonly_paths: vec!["/proc/sys".into()],
            seccomp: SecurityProfile::Localhost("/p.json".into()),
            apparmor: SecurityProfile::Unconfined,
            selinux: Some(SelinuxOptions {
                role: "r".into(),
                ..Default::default()
            }),
        }
    );
}

#[test]
fn no_linux_part_gives_the_defaults_of_cri() {
    let mapped = map(cri::ContainerConfig {
        linux: None,
        ..full()
    })
    .unwrap();
    assert_eq!(mapped.pid, PidMode::Pod);
    assert_eq!(mapped.oom_score_adj, None);
    assert_eq!(mapped.resources, joey_cgroup::Resources::default());
    assert_eq!(mapped.security.seccomp, SecurityProfile::Unconfined);
    assert_eq!(mapped.security.apparmor, SecurityProfile::RuntimeDefault);
}

#[test]
fn every_pid_mode_is_mapped() {
    for (mode, wanted) in [
        (0, PidMode::Pod),
        (1, PidMode::Container),
        (2, PidMode::Node),
    ] {
        let options = cri::NamespaceOption {
            pid: mode,
            ..Default::default()
        };
        assert_eq!(pid(Some(&options)).unwrap(), wanted);
    }
    for mode in [3, 4] {
        let options = cri::NamespaceOption {
            pid: mode,
            ..Default::default()
        };
        assert!(pid(Some(&options)).is_err(), "{mode}");
    }
}

#[test]
fn logs_stay_in_their_directory() {
    let at = |directory: &str, path: &str| log_path(Path::new(directory), path);
    assert_eq!(at("/l", "a.log").unwrap(), Some("/l/a.log".into()));
    assert_eq!(at("/l", "/a.log").unwrap(), Some("/l/a.log".into()));
    assert_eq!(at("/l", "").unwrap(), None);
    assert_eq!(at("", "a.log").unwrap(), None);
    at("/l", "../a.log").unwrap_err();
}

#[test]
fn a_privileged_container_needs_a_privileged_pod() {
    let pod = PodConfig::default();
    let refused = container(full(), &pod, |name| Some(name.to_owned()));
    assert!(matches!(refused, Err(Failure::Invalid(_))));
}

#[test]
fn the_user_namespace_is_the_pods() {
    let mut given = full();
    let range = vec![cri::IdMapping {
        host_id: 9,
        container_id: 0,
        length: 10,
    }];
    let options = given
        .linux
        .as_mut()
        .unwrap()
        .security_context
        .as_mut()
        .unwrap();
    options.namespace_options.as_mut().unwrap().userns_options = Some(cri::UserNamespace {
        mode: 0,
        uids: range.clone(),
        gids: range,
    });
    map(given).unwrap_err();
}

#[test]
fn bad_containers_are_refused() {
    type Change = fn(&mut cri::ContainerConfig);
    let refused: [(&str, Change); 10] = [
        ("no metadata", |c| c.metadata = None),
        ("no name", |c| c.metadata.as_mut().unwrap().name.clear()),
        ("no image", |c| c.image = None),
        ("empty image", |c| c.image.as_mut().unwrap().image.clear()),
        ("no variable name", |c| c.envs[0].key.clear()),
        ("odd variable name", |c| c.envs[0].key = "A=B".into()),
        ("NUL in a value", |c| c.envs[0].value = vec![0].into()),
        ("NUL in the command", |c| c.command[0].push('\0')),
        ("signal", |c| c.stop_signal = 99),
        ("cdi", |c| c.cdi_devices[0].name = "gpu".into()),
    ];
    for (what, change) in refused {
        let mut given = full();
        change(&mut given);
        assert!(matches!(map(given), Err(Failure::Invalid(_))), "{what}");
    }
    let mut absent = full();
    absent.image.as_mut().unwrap().image = "absent".into();
    assert!(matches!(
        map(absent),
        Err(Failure::NotFound { kind: "image", .. })
    ));
}
