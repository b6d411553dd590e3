//! A pod as a kubelet asks for it, from its start to its end.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use joey_proto::cri::*;

use crate::error::BenchError;
use crate::side::Side;

/// The image of the pods' containers.
pub const IMAGE: &str = "registry.k8s.io/e2e-test-images/busybox:1.29-2";
/// The program they run, by which their processes are told from a runtime's helpers.
pub const PROGRAM: &str = "sleep";

const NAMESPACE: &str = "default";
const CONTAINER: &str = "main";
const MIB: i64 = 1 << 20;

/// What a kubelet hides and protects by default.
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// How long the calls that start a pod took, in ms.
#[derive(Debug, Clone, Copy)]
pub struct Started {
    /// RunPodSandbox.
    pub run: f64,
    /// CreateContainer.
    pub create: f64,
    /// StartContainer.
    pub start: f64,
}

impl Started {
    /// All of them.
    pub fn total(&self) -> f64 {
        self.run + self.create + self.start
    }
}

/// How long the calls that end a pod took, in ms.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// StopContainer.
    pub stop: f64,
    /// StopPodSandbox.
    pub stop_pod: f64,
    /// RemoveContainer.
    pub remove: f64,
    /// RemovePodSandbox.
    pub remove_pod: f64,
}

impl Ended {
    /// All of them.
    pub fn total(&self) -> f64 {
        self.stop + self.stop_pod + self.remove + self.remove_pod
    }
}

/// A running pod with one container.
#[derive(Debug)]
pub struct Pod {
    /// The pod's id.
    pub id: String,
    /// The container's id.
    pub container: String,
    uid: String,
}

impl Pod {
    /// Runs a pod and a container in it.
    pub async fn start(side: &Side, image: &str) -> Result<(Self, Started), BenchError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let uid = format!("{:08x}-be4c-4000-8000-{number:012x}", std::process::id());
        let name = format!("bench-{number}");
        prepare(&side.pod_folder(&uid))?;

        let config = pod_config(side, &name, &uid);
        let (id, run) = side.run_pod(&config).await?;
        let container = container_config(side, &name, &uid, image);
        let (container, create) = side.create(&id, &container, &config).await?;
        let ((), start) = side.start(&container).await?;
        let pod = Self { id, container, uid };
        Ok((pod, Started { run, create, start }))
    }

    /// Stops and removes the container and the pod.
    pub async fn end(self, side: &Side) -> Result<Ended, BenchError> {
        let ended = Ended {
            stop: side.stop(&self.container).await?.1,
            stop_pod: side.stop_pod(&self.id).await?.1,
            remove: side.remove(&self.container).await?.1,
            remove_pod: side.remove_pod(&self.id).await?.1,
        };
        let folder = side.pod_folder(&self.uid);
        std::fs::remove_dir_all(&folder).map_err(BenchError::file(&folder))?;
        Ok(ended)
    }
}

/// Makes what a kubelet makes in its own folders before it calls.
fn prepare(folder: &Path) -> Result<(), BenchError> {
    let logs = folder.join(CONTAINER);
    std::fs::create_dir_all(&logs).map_err(BenchError::file(&logs))?;
    let hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
    for (file, text) in [("etc-hosts", hosts), ("termination-log", "")] {
        let path = folder.join(file);
        std::fs::write(&path, text).map_err(BenchError::file(&path))?;
    }
    Ok(())
}

fn labels(name: &str, uid: &str) -> HashMap<String, String> {
    let labels = [
        ("app", "bench"),
        ("pod-template-hash", "5d4f8c7b9"),
        ("io.kubernetes.pod.name", name),
        ("io.kubernetes.pod.namespace", NAMESPACE),
        ("io.kubernetes.pod.uid", uid),
    ];
    owned(&labels)
}

fn owned(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    let pairs = pairs.iter();
    pairs.map(|(k, v)| ((*k).into(), (*v).into())).collect()
}

fn words(all: &[&str]) -> Vec<String> {
    all.iter().map(|word| (*word).to_owned()).collect()
}

fn limits() -> LinuxContainerResources {
    LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 100_000,
        cpu_shares: 512,
        memory_limit_in_bytes: 256 * MIB,
        oom_score_adj: 900,
        ..Default::default()
    }
}

fn namespaces() -> NamespaceOption {
    NamespaceOption {
        network: NamespaceMode::Pod.into(),
        pid: NamespaceMode::Container.into(),
        ipc: NamespaceMode::Pod.into(),
        ..Default::default()
    }
}

fn default_seccomp() -> SecurityProfile {
    SecurityProfile {
        profile_type: security_profile::ProfileType::RuntimeDefault.into(),
        ..Default::default()
    }
}

fn pod_config(side: &Side, name: &str, uid: &str) -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.into(),
            uid: uid.into(),
            namespace: NAMESPACE.into(),
            attempt: 0,
        }),
        hostname: name.into(),
        log_directory: side.pod_folder(uid).to_string_lossy().into_owned(),
        dns_config: Some(DnsConfig {
            servers: words(&["10.96.0.10"]),
            searches: words(&[
                "default.svc.cluster.local",
                "svc.cluster.local",
                "cluster.local",
            ]),
            options: words(&["ndots:5"]),
        }),
        labels: labels(name, uid),
        annotations: owned(&[
            (
                "kubernetes.io/config.seen",
                "2026-11-01T08:00:00.000000000Z",
            ),
            ("kubernetes.io/config.source", "api"),
        ]),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: side.pods_group(),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces()),
                seccomp: Some(default_seccomp()),
                ..Default::default()
            }),
            overhead: Some(LinuxContainerResources::default()),
            resources: Some(limits()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn mount(host: &Path, container: &str, readonly: bool) -> Mount {
    Mount {
        host_path: host.to_string_lossy().into_owned(),
        container_path: container.into(),
        readonly,
        ..Default::default()
    }
}

fn container_config(side: &Side, name: &str, uid: &str, image: &str) -> ContainerConfig {
    let folder = side.pod_folder(uid);
    let service = "/var/run/secrets/kubernetes.io/serviceaccount";
    let environment = [
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("KUBERNETES_SERVICE_PORT", "443"),
        ("KUBERNETES_SERVICE_PORT_HTTPS", "443"),
        ("KUBERNETES_PORT", "tcp://10.96.0.1:443"),
        ("KUBERNETES_PORT_443_TCP", "tcp://10.96.0.1:443"),
        ("KUBERNETES_PORT_443_TCP_PROTO", "tcp"),
        ("KUBERNETES_PORT_443_TCP_ADDR", "10.96.0.1"),
        ("KUBERNETES_PORT_443_TCP_PORT", "443"),
    ];
    let mut all_labels = labels(name, uid);
    all_labels.insert("io.kubernetes.container.name".into(), CONTAINER.into());
    ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: CONTAINER.into(),
            attempt: 0,
        }),
        image: Some(ImageSpec {
            image: image.into(),
            user_specified_image: IMAGE.into(),
            ..Default::default()
        }),
        command: words(&[PROGRAM, "1000000"]),
        envs: environment
            .map(|(key, value)| KeyValue {
                key: key.into(),
                value: value.into(),
            })
            .into(),
        mounts: vec![
            mount(&side.place.folder.join("token"), service, true),
            mount(&folder.join("etc-hosts"), "/etc/hosts", false),
            mount(
                &folder.join("termination-log"),
                "/dev/termination-log",
                false,
            ),
        ],
        labels: all_labels,
        annotations: owned(&[
            ("io.kubernetes.container.hash", "b7c6a1d2"),
            ("io.kubernetes.container.restartCount", "0"),
            (
                "io.kubernetes.container.terminationMessagePath",
                "/dev/termination-log",
            ),
            ("io.kubernetes.container.terminationMessagePolicy", "File"),
            ("io.kubernetes.pod.terminationGracePeriod", "30"),
        ]),
        log_path: format!("{CONTAINER}/0.log"),
        linux: Some(LinuxContainerConfig {
            resources: Some(limits()),
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(namespaces()),
                masked_paths: words(&MASKED),
                readonly_paths: words(&READ_ONLY),
                seccomp: Some(default_seccomp()),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}
