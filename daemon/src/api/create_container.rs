//! `CreateContainer`: a pod with one container, with the defaults an operator expects.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use joey_image::Image;
use joey_proto::api::{CreateContainerRequest, CreateContainerResponse, PortMapping, Volume};
use joey_runtime::model::{
    self, Capabilities, ContainerConfig, ImageIdentity, LogRotation, Mount, MountSource,
    NamespaceMode, Owner, PidMode, PodConfig, PodSecurity, Propagation, Protocol, Security,
    SecurityProfile, User,
};

use super::status::Failure;
use super::task::to_its_end;
use super::{AUTO_REMOVE, MAX_LOG_FILES, NAMESPACE, State, container_log, limits, names};
use crate::config;

/// Hidden from containers that are not privileged, as containerd hides them.
const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel/debug",
];
/// Not writable in containers that are not privileged.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Makes the pod and the container; neither is left after an error.
pub async fn create(
    state: &Arc<State>,
    request: CreateContainerRequest,
) -> Result<CreateContainerResponse, Failure> {
    let image = state
        .images
        .get(&request.image)
        .ok_or_else(|| Failure::NotFound {
            kind: "image",
            name: request.image.clone(),
        })?;
    let name = Reservation::take(state, &request.name)?;
    let uid = container_log::new_uid();
    let pod = pod_config(state, &request, &name.name, &uid)?;
    let container = container_config(state, &request, &name.name, &pod, &image)?;
    let volumes: Vec<PathBuf> = request.volumes.iter().map(|v| (&v.source).into()).collect();
    state.runtime.make_mount_sources(&volumes).await?;
    let state = Arc::clone(state);
    to_its_end(async move {
        let pod_id = state.runtime.run_pod(pod).await?;
        match state.runtime.create_container(&pod_id, container).await {
            Ok(id) => Ok(CreateContainerResponse {
                id,
                name: name.name.clone(),
            }),
            Err(error) => {
                state.discard(&pod_id).await;
                Err(Failure::from(error))
            }
        }
    })
    .await
}

impl State {
    async fn discard(&self, pod_id: &str) {
        if let Err(error) = self.remove_pod(pod_id).await {
            tracing::warn!(pod = pod_id, error = %error.chain(), "a pod without a container stays behind");
        }
    }
}

/// A name that nobody else can take meanwhile.
#[derive(Debug)]
struct Reservation {
    state: Arc<State>,
    name: String,
}

impl Reservation {
    fn take(state: &Arc<State>, wanted: &str) -> Result<Self, Failure> {
        let mut reserved = state.reserved.lock();
        let used: BTreeMap<String, String> = state
            .containers()
            .iter()
            .map(|container| {
                (
                    container.record().config.name.clone(),
                    container.id().to_owned(),
                )
            })
            .collect();
        let name = if wanted.is_empty() {
            names::generate(|name| reserved.contains(name) || used.contains_key(name))
        } else if !names::is_valid(wanted) {
            return Err(Failure::Invalid(format!(
                "{wanted:?} is no name: use up to 63 letters, digits, '_', '.' and '-', a letter or digit first"
            )));
        } else {
            wanted.to_owned()
        };
        if let Some(id) = used.get(&name).cloned() {
            return Err(Failure::NameTaken { name, id });
        }
        if !reserved.insert(name.clone()) {
            return Err(Failure::NameReserved(name));
        }
        Ok(Self {
            state: Arc::clone(state),
            name,
        })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.state.reserved.lock().remove(&self.name);
    }
}

fn pod_config(
    state: &State,
    request: &CreateContainerRequest,
    name: &str,
    uid: &str,
) -> Result<PodConfig, Failure> {
    let network = match request.network.as_str() {
        "" | "bridge" | "none" => NamespaceMode::Pod,
        "host" => NamespaceMode::Node,
        other => {
            return Err(Failure::Invalid(format!(
                "network {other:?} is none of bridge, host and none"
            )));
        }
    };
    let host_network = network == NamespaceMode::Node;
    let isolated = request.network == "none";
    if (host_network || isolated) && !request.ports.is_empty() {
        return Err(Failure::Invalid(
            "ports are published with the bridge network only".into(),
        ));
    }
    if host_network && !request.hostname.is_empty() {
        return Err(Failure::Invalid(
            "the host's network has the host's name".into(),
        ));
    }
    let hostname = match request.hostname.as_str() {
        "" if host_network => "",
        "" => name,
        given => given,
    };
    let mut annotations = BTreeMap::new();
    if request.auto_remove {
        annotations.insert(AUTO_REMOVE.to_owned(), "true".to_owned());
    }
    Ok(PodConfig {
        owner: Owner::Joey,
        name: name.to_owned(),
        namespace: NAMESPACE.to_owned(),
        uid: uid.to_owned(),
        hostname: hostname.to_owned(),
        log_directory: state.logs.join(uid),
        port_mappings: request.ports.iter().map(port).collect::<Result<_, _>>()?,
        annotations,
        network,
        isolated,
        pid: NamespaceMode::Container,
        security: PodSecurity {
            privileged: request.privileged,
            seccomp: SecurityProfile::RuntimeDefault,
            ..PodSecurity::default()
        },
        ..PodConfig::default()
    })
}

fn port(port: &PortMapping) -> Result<model::PortMapping, Failure> {
    let number = |value: u32, what| {
        u16::try_from(value)
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| Failure::Invalid(format!("{what} port {value} is not in 1 … 65535")))
    };
    let protocol = match port.protocol.as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => {
            return Err(Failure::Invalid(format!(
                "protocol {other:?} is none of tcp, udp and sctp"
            )));
        }
    };
    Ok(model::PortMapping {
        protocol,
        container_port: number(port.container_port, "container")?,
        host_port: number(port.host_port, "host")?,
        host_ip: port.host_ip.clone(),
    })
}

fn container_config(
    state: &State,
    request: &CreateContainerRequest,
    name: &str,
    pod: &PodConfig,
    image: &Image,
) -> Result<ContainerConfig, Failure> {
    let (command, args) = if request.set_entrypoint && request.entrypoint.is_empty() {
        (request.command.clone(), Vec::new())
    } else {
        (request.entrypoint.clone(), request.command.clone())
    };
    Ok(ContainerConfig {
        name: name.to_owned(),
        image: ImageIdentity {
            id: image.id.clone(),
            reference: request.image.clone(),
            user_specified: request.image.clone(),
            runtime_handler: String::new(),
        },
        command,
        args,
        working_dir: request.workdir.clone(),
        env: request
            .env
            .iter()
            .map(|entry| env(entry))
            .collect::<Result<_, _>>()?,
        mounts: request
            .volumes
            .iter()
            .map(mount)
            .collect::<Result<_, _>>()?,
        labels: request.labels.clone().into_iter().collect(),
        log_path: Some(pod.log_directory.join("container.log")),
        log_rotation: log_rotation(&state.config.containers, request)?,
        stdin: request.stdin,
        stdin_once: request.stdin && !request.tty && !request.keep_stdin,
        tty: request.tty,
        resources: limits::resources(&request.limits.clone().unwrap_or_default())?,
        // Not the daemon's own.
        oom_score_adj: Some(0),
        security: security(state, request),
        pid: PidMode::Container,
        stop_signal: (request.stop_signal != 0).then(|| request.stop_signal.to_string()),
        ..ContainerConfig::default()
    })
}

/// None: the log grows.
fn log_rotation(
    defaults: &config::Containers,
    request: &CreateContainerRequest,
) -> Result<Option<LogRotation>, Failure> {
    let max_bytes = request
        .log_max_bytes
        .unwrap_or_else(|| defaults.log_max_size.bytes());
    let max_files = match request.log_max_files {
        0 => defaults.log_max_files,
        given @ 1..=MAX_LOG_FILES => given,
        given => {
            return Err(Failure::Invalid(format!(
                "{given} log files are not in 1 … {MAX_LOG_FILES}"
            )));
        }
    };
    Ok((max_bytes > 0).then_some(LogRotation {
        max_bytes,
        max_files,
    }))
}

/// `KEY=value`.
pub(super) fn env(entry: &str) -> Result<(String, Vec<u8>), Failure> {
    match entry.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.as_bytes().to_vec())),
        _ => Err(Failure::Invalid(format!(
            "environment {entry:?} is not KEY=value"
        ))),
    }
}

fn mount(volume: &Volume) -> Result<Mount, Failure> {
    let (source, destination) = (
        PathBuf::from(&volume.source),
        PathBuf::from(&volume.destination),
    );
    for path in [&source, &destination] {
        if !path.is_absolute() {
            return Err(Failure::Invalid(format!(
                "volume path {} is not absolute",
                path.display()
            )));
        }
    }
    Ok(Mount {
        source: MountSource::Host(source),
        destination,
        readonly: volume.readonly,
        recursive_readonly: false,
        selinux_relabel: false,
        propagation: Propagation::Private,
        uids: Vec::new(),
        gids: Vec::new(),
    })
}

fn security(state: &State, request: &CreateContainerRequest) -> Security {
    let paths = |paths: &[&str]| match request.privileged {
        true => Vec::new(),
        false => paths.iter().map(|path| (*path).to_owned()).collect(),
    };
    let default_if = |wanted: bool| match wanted && !request.privileged {
        true => SecurityProfile::RuntimeDefault,
        false => SecurityProfile::Unconfined,
    };
    let features = state.runtime.info().features;
    Security {
        privileged: request.privileged,
        capabilities: Capabilities {
            add: request.cap_add.clone(),
            drop: request.cap_drop.clone(),
            add_ambient: Vec::new(),
        },
        user: User {
            name: request.user.clone(),
            ..User::default()
        },
        readonly_rootfs: request.readonly_rootfs,
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        seccomp: default_if(features.seccomp),
        apparmor: default_if(features.apparmor),
        ..Security::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_can_never_be_right_are_refused() {
        assert_eq!(env("A=b=c").unwrap(), ("A".into(), b"b=c".to_vec()));
        assert!(env("A").is_err() && env("=b").is_err());
        let volume = |source: &str, destination: &str| Volume {
            source: source.into(),
            destination: destination.into(),
            readonly: true,
        };
        assert!(mount(&volume("/a", "/b")).unwrap().readonly);
        assert!(mount(&volume("a", "/b")).is_err() && mount(&volume("/a", "b")).is_err());
        let mapping = |host_port, protocol: &str| PortMapping {
            host_port,
            container_port: 80,
            protocol: protocol.into(),
            host_ip: String::new(),
        };
        assert_eq!(port(&mapping(8080, "udp")).unwrap().protocol, Protocol::Udp);
        assert!(port(&mapping(0, "tcp")).is_err() && port(&mapping(65_536, "tcp")).is_err());
        let unknown = port(&mapping(1, "icmp")).unwrap_err();
        assert!(unknown.to_string().contains("icmp"));
    }
}
