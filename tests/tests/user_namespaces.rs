//! Pods whose root is nobody on the node.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::fs::MetadataExt;

use joey_proto::cri::*;
use joey_tests::{Stand, bind, namespaces, pod_security, security};

const HOST_ID: u32 = 300_000;
const LENGTH: u32 = 65_536;

fn mapping() -> IdMapping {
    IdMapping {
        host_id: HOST_ID,
        container_id: 0,
        length: LENGTH,
    }
}

fn user_namespace() -> UserNamespace {
    UserNamespace {
        mode: NamespaceMode::Pod.into(),
        uids: vec![mapping()],
        gids: vec![mapping()],
    }
}

fn mapped_pod(node: &Stand, name: &str) -> PodSandboxConfig {
    let mut config = node.pod_config(name);
    let options = pod_security(&mut config).namespace_options.as_mut();
    options.unwrap().userns_options = Some(user_namespace());
    config
}

fn mapped(mut container: ContainerConfig) -> ContainerConfig {
    namespaces(&mut container).userns_options = Some(user_namespace());
    container
}

#[tokio::test]
async fn mapped_root_owns_its_files_and_is_nobody_on_the_node() {
    let node = Stand::start().await;
    let config = mapped_pod(&node, "mapped");
    let pod = node.client.run_pod(&config).await;
    let container = mapped(node.container("main", &["sleep", "7654"]));
    let id = node.client.run(&pod, &container, &config).await;

    let owners = ["stat", "-c", "%u:%g", "/", "/bin/busybox", "/tmp"];
    let (seen, err, _) = node.client.exec(&id, &owners).await;
    assert_eq!(seen, "0:0\n0:0\n0:0\n", "{err}");
    let map = node
        .client
        .exec(&id, &["cat", "/proc/self/uid_map"])
        .await
        .0;
    let map: Vec<&str> = map.split_whitespace().collect();
    assert_eq!(map, ["0", "300000", "65536"]);
    let write = "echo new >/root/new && chown 7:7 /root/new && stat -c %u /root/new";
    let (seen, err, code) = node.client.exec(&id, &["sh", "-c", write]).await;
    assert_eq!((seen.as_str(), code), ("7\n", 0), "{err}");

    let pid = pid_of("sleep\x007654\x00");
    let process = std::fs::metadata(format!("/proc/{pid}")).unwrap();
    assert_eq!((process.uid(), process.gid()), (HOST_ID, HOST_ID));
    let inside = node
        .client
        .exec(&id, &["readlink", "/proc/self/ns/user"])
        .await;
    let of_init = std::fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
    assert_eq!(inside.0.trim(), of_init.to_string_lossy());
    let of_node = std::fs::read_link("/proc/self/ns/user").unwrap();
    assert_ne!(of_init, of_node);

    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn mapped_volumes_keep_their_owners() {
    let node = Stand::start().await;
    let volume = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::write(volume.path().join("old"), "old").unwrap();
    std::os::unix::fs::chown(volume.path().join("old"), Some(1000), Some(1000)).unwrap();
    let config = mapped_pod(&node, "volume");
    let pod = node.client.run_pod(&config).await;
    let script = "stat -c %u:%g /v /v/old; echo n >/v/new; chown 5:6 /v/new; stat -c %u:%g /v/new";
    let mut container = mapped(node.container("main", &["sh", "-c", script]));
    container.mounts.push(Mount {
        uid_mappings: vec![mapping()],
        gid_mappings: vec![mapping()],
        ..bind(volume.path(), "/v")
    });
    let (seen, code) = node.run_to_end(&pod, &container, &config).await;
    assert_eq!((seen.as_str(), code), ("0:0\n1000:1000\n5:6\n", 0));
    let new = std::fs::metadata(volume.path().join("new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (5, 6));

    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn capabilities_of_a_mapped_root_end_at_its_namespace() {
    let node = Stand::start().await;
    let config = mapped_pod(&node, "caps");
    let pod = node.client.run_pod(&config).await;
    let mut container = mapped(node.sleeper("main"));
    security(&mut container).capabilities = Some(Capability {
        add_capabilities: vec!["ALL".into()],
        ..Default::default()
    });
    let id = node.client.run(&pod, &container, &config).await;
    let mount = "mkdir /m && mount -t tmpfs none /m && echo mounted";
    let (seen, err, _) = node.client.exec(&id, &["sh", "-c", mount]).await;
    assert_eq!(seen, "mounted\n", "{err}");
    let (_, _, code) = node
        .client
        .exec(&id, &["mknod", "/m/sda", "b", "8", "0"])
        .await;
    assert_ne!(code, 0, "a device node can't be made");
    let (_, _, code) = node
        .client
        .exec(&id, &["sh", "-c", "echo x >/proc/sys/kernel/core_pattern"])
        .await;
    assert_ne!(code, 0, "the node's settings can't be written");

    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn a_shared_pid_namespace_is_inside_the_user_namespace() {
    let node = Stand::start().await;
    let mut config = mapped_pod(&node, "both");
    let options = pod_security(&mut config).namespace_options.as_mut();
    options.unwrap().pid = NamespaceMode::Pod.into();
    let pod = node.client.run_pod(&config).await;
    let mut container = mapped(node.sleeper("main"));
    namespaces(&mut container).pid = NamespaceMode::Pod.into();
    security(&mut container).capabilities = Some(Capability {
        add_capabilities: vec!["SYS_PTRACE".into()],
        ..Default::default()
    });
    let id = node.client.run(&pod, &container, &config).await;
    let (root, err, _) = node.client.exec(&id, &["ls", "-A", "/proc/1/root/"]).await;
    assert_eq!(root, "", "{err}");
    let (map, err, _) = node.client.exec(&id, &["cat", "/proc/1/uid_map"]).await;
    assert!(
        map.contains("300000"),
        "the init is in the namespace: {map} {err}"
    );

    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn wrong_mappings_are_refused() {
    let node = Stand::start().await;
    let two = UserNamespace {
        uids: vec![mapping(), mapping()],
        ..user_namespace()
    };
    let without_root = UserNamespace {
        uids: vec![IdMapping {
            container_id: 1,
            ..mapping()
        }],
        ..user_namespace()
    };
    let empty = UserNamespace {
        uids: Vec::new(),
        ..user_namespace()
    };
    let target = UserNamespace {
        mode: NamespaceMode::Target.into(),
        ..user_namespace()
    };
    for wrong in [two, without_root, empty, target] {
        let mut config = node.pod_config("wrong");
        let options = pod_security(&mut config).namespace_options.as_mut();
        options.unwrap().userns_options = Some(wrong.clone());
        let request = RunPodSandboxRequest {
            config: Some(config),
            ..Default::default()
        };
        let reply = node.client.runtime().run_pod_sandbox(request).await;
        let error = reply.expect_err(&format!("{wrong:?}"));
        assert_eq!(error.code(), tonic::Code::InvalidArgument, "{error}");
    }
    node.assert_clean().await;
}

/// The process with this command line.
fn pid_of(wanted: &str) -> i32 {
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line == wanted.as_bytes() {
            return pid;
        }
    }
    panic!("no process {wanted:?}");
}
