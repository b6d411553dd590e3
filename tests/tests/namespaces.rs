//! Which namespaces a container shares, and with whom.
#![allow(clippy::unwrap_used)]

use joey_proto::cri::*;
use joey_tests::{Stand, namespaces, pod_security, security};

/// Asks for a PID namespace of the pod.
fn share_pids(pod: &mut PodSandboxConfig) {
    let options = pod_security(pod).namespace_options.get_or_insert_default();
    options.pid = NamespaceMode::Pod.into();
}

fn own(kind: &str) -> String {
    let link = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    link.to_string_lossy().into_owned()
}

#[tokio::test]
async fn a_shared_pid_namespace_shows_the_other_container_and_nothing_of_the_node() {
    let node = Stand::start().await;
    let mut config = node.pod_config("shared");
    share_pids(&mut config);
    let pod = node.client.run_pod(&config).await;
    let mut other = node.container("other", &["sleep", "4321"]);
    namespaces(&mut other).pid = NamespaceMode::Pod.into();
    node.client.run(&pod, &other, &config).await;
    let mut tracer = node.sleeper("tracer");
    namespaces(&mut tracer).pid = NamespaceMode::Pod.into();
    security(&mut tracer).capabilities = Some(Capability {
        add_capabilities: vec!["SYS_PTRACE".into(), "DAC_READ_SEARCH".into()],
        ..Default::default()
    });
    let tracer = node.client.run(&pod, &tracer, &config).await;

    let (seen, _, _) = node.client.exec(&tracer, &["ps", "-o", "args"]).await;
    assert!(seen.contains("sleep 4321"), "{seen}");
    assert!(!seen.contains("joeyd"), "{seen}");
    let (root, err, _) = node
        .client
        .exec(&tracer, &["ls", "-A", "/proc/1/root/"])
        .await;
    assert_eq!(root, "", "the init's root is empty: {err}");
    let (fds, err, _) = node.client.exec(&tracer, &["ls", "-A", "/proc/1/fd"]).await;
    assert_eq!(fds, "", "the init holds no descriptor: {err}");
    let (status, _, _) = node.client.exec(&tracer, &["cat", "/proc/1/status"]).await;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let empty = format!("{set}:\t0000000000000000");
        assert!(status.contains(&empty), "{status}");
    }
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    let (environment, _, _) = node.client.exec(&tracer, &["cat", "/proc/1/environ"]).await;
    assert_eq!(environment, "");

    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn orphans_of_a_shared_pid_namespace_are_reaped() {
    let node = Stand::start().await;
    let mut config = node.pod_config("orphans");
    share_pids(&mut config);
    let pod = node.client.run_pod(&config).await;
    let mut main = node.sleeper("main");
    namespaces(&mut main).pid = NamespaceMode::Pod.into();
    let main = node.client.run(&pod, &main, &config).await;
    let orphan = ["sh", "-c", "(sleep 0.2 &) ; exit 0"];
    assert_eq!(node.client.exec(&main, &orphan).await.2, 0);
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    let (states, _, _) = node.client.exec(&main, &["ps", "-o", "stat,args"]).await;
    assert!(!states.contains('Z'), "{states}");

    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn a_target_namespace_is_the_other_containers() {
    let node = Stand::start().await;
    let config = node.pod_config("target");
    let pod = node.client.run_pod(&config).await;
    let main = node.container("main", &["sleep", "4321"]);
    let main = node.client.run(&pod, &main, &config).await;
    let mut debugger = node.container("debugger", &["ps", "-o", "pid,args"]);
    let options = namespaces(&mut debugger);
    options.pid = NamespaceMode::Target.into();
    options.target_id.clone_from(&main);
    let (seen, code) = node.run_to_end(&pod, &debugger, &config).await;
    assert_eq!(code, 0, "{seen}");
    assert!(seen.contains("1 sleep 4321"), "{seen}");
    let running = node.client.status(&main).await;
    assert_eq!(running.state(), ContainerState::ContainerRunning);

    let mut lost = node.sleeper("lost");
    let options = namespaces(&mut lost);
    options.pid = NamespaceMode::Target.into();
    options.target_id = "nobody".into();
    let error = match node.client.create(&pod, &lost, &config).await {
        Ok(id) => node.client.start(&id).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(error.message().contains("nobody"), "{error}");

    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn node_namespaces_are_the_nodes() {
    let node = Stand::start().await;
    let mut config = node.pod_config("host");
    config.hostname = String::new();
    let options = NamespaceOption {
        network: NamespaceMode::Node.into(),
        pid: NamespaceMode::Node.into(),
        ipc: NamespaceMode::Node.into(),
        ..Default::default()
    };
    pod_security(&mut config).namespace_options = Some(options.clone());
    let pod = node.client.run_pod(&config).await;
    let mut container = node.sleeper("main");
    security(&mut container).namespace_options = Some(options);
    let id = node.client.run(&pod, &container, &config).await;
    for kind in ["net", "ipc", "pid", "uts"] {
        let link = format!("/proc/self/ns/{kind}");
        let (seen, err, _) = node.client.exec(&id, &["readlink", &link]).await;
        assert_eq!(seen.trim(), own(kind), "{kind} {err}");
    }
    let link = ["readlink", "/proc/self/ns/mnt"];
    assert_ne!(node.client.exec(&id, &link).await.0.trim(), own("mnt"));

    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn pod_namespaces_are_shared_by_its_containers_and_not_with_the_node() {
    let node = Stand::start().await;
    let config = node.pod_config("pod");
    let pod = node.client.run_pod(&config).await;
    let a = node.client.run(&pod, &node.sleeper("a"), &config).await;
    let b = node.client.run(&pod, &node.sleeper("b"), &config).await;
    for kind in ["net", "ipc", "uts", "pid", "mnt"] {
        let command = ["readlink", &format!("/proc/1/ns/{kind}")];
        let a = node.client.exec(&a, &command).await.0;
        let b = node.client.exec(&b, &command).await.0;
        assert_ne!(a.trim(), own(kind), "{kind}");
        assert_eq!(a == b, ["net", "ipc", "uts"].contains(&kind), "{kind}");
    }
    let name = node.client.exec(&a, &["hostname"]).await.0;
    assert_eq!(name, "pod\n");
    let file = node.client.exec(&b, &["cat", "/etc/hostname"]).await.0;
    assert_eq!(file, "pod\n");
    node.client
        .exec(&a, &["sh", "-c", "echo x >/dev/shm/f"])
        .await;
    let shared = node.client.exec(&b, &["cat", "/dev/shm/f"]).await.0;
    assert_eq!(shared, "x\n");

    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn sysctls_are_the_pods() {
    let node = Stand::start().await;
    let mut config = node.pod_config("sysctls");
    let sysctls = &mut config.linux.as_mut().unwrap().sysctls;
    sysctls.insert("net.ipv4.ip_forward".into(), "1".into());
    sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
    let pod = node.client.run_pod(&config).await;
    let id = node.client.run(&pod, &node.sleeper("main"), &config).await;
    for (path, value) in [
        ("net/ipv4/ip_forward", "1\n"),
        ("kernel/shm_rmid_forced", "1\n"),
        ("net/ipv4/ip_unprivileged_port_start", "0\n"),
    ] {
        let (seen, err, _) = node
            .client
            .exec(&id, &["cat", &format!("/proc/sys/{path}")])
            .await;
        assert_eq!(seen, value, "{path} {err}");
    }
    node.client.remove_pod(&pod).await;

    for bad in ["vm.swappiness"] {
        let mut config = node.pod_config("bad");
        let sysctls = &mut config.linux.as_mut().unwrap().sysctls;
        sysctls.insert(bad.into(), "1".into());
        let request = RunPodSandboxRequest {
            config: Some(config),
            ..Default::default()
        };
        let error = node.client.runtime().run_pod_sandbox(request).await;
        let error = error.unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument, "{error}");
        assert!(error.message().contains(bad), "{error}");
    }
    node.assert_clean().await;
}

#[tokio::test]
async fn a_container_sees_the_version_of_the_cgroups_that_limit_it() {
    let node = Stand::start().await;
    let config = node.pod_config("version");
    let pod = node.client.run_pod(&config).await;
    let id = node.client.run(&pod, &node.sleeper("main"), &config).await;
    let (mounts, _, _) = node.client.exec(&id, &["cat", "/proc/mounts"]).await;
    let seen = mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        let path = fields.next().unwrap_or_default();
        path.starts_with("/sys/fs/cgroup") && fields.next() == Some("cgroup2")
    });
    // Programs such as upstream's specs take any such mount for the sign of cgroup v2.
    let is_v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    assert_eq!(seen, is_v2, "{mounts}");
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}
