//! `Inspect`: a container or an image as JSON, with docker's names where docker has them.

use std::path::Path;

use chrono::{DateTime, SecondsFormat};
use joey_image::Image;
use joey_proto::api::{InspectRequest, InspectResponse};
use joey_runtime::Container;
use joey_runtime::model::{
    Cause, ContainerRecord, ContainerState, Exit, Mount, MountSource, PodRecord, PortMapping,
    Protocol,
};
use serde_json::{Map, Value, json};

use super::list_containers::{network_name, state_name};
use super::status::Failure;
use super::{AUTO_REMOVE, State};

/// What docker shows for a time that is not there.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Finds the object and describes it.
pub fn inspect(state: &State, request: &InspectRequest) -> Result<InspectResponse, Failure> {
    let name = &request.name;
    let described = match request.kind.as_str() {
        "" => match state.find(name) {
            Ok(container) => container_json(state, &container),
            Err(Failure::NotFound { .. }) => image_json(&*find_image(state, "object", name)?),
            Err(other) => return Err(other),
        },
        "container" => container_json(state, &*state.find(name)?),
        "image" => image_json(&*find_image(state, "image", name)?),
        other => {
            return Err(Failure::Invalid(format!(
                "{other:?} is neither container nor image"
            )));
        }
    };
    Ok(InspectResponse {
        json: described.to_string().into_bytes(),
    })
}

fn find_image(
    state: &State,
    kind: &'static str,
    name: &str,
) -> Result<std::sync::Arc<Image>, Failure> {
    state.images.get(name).ok_or_else(|| Failure::NotFound {
        kind,
        name: name.to_owned(),
    })
}

/// RFC 3339 of ns since the epoch.
fn time(ns: i64) -> String {
    DateTime::from_timestamp_nanos(ns).to_rfc3339_opts(SecondsFormat::Nanos, true)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn container_json(state: &State, container: &Container) -> Value {
    let record = container.record();
    let config = &record.config;
    let pod = state
        .runtime
        .pod(&record.pod_id)
        .ok()
        .map(|pod| pod.record());
    let pod = pod.as_deref();
    json!({
        "Id": record.id,
        "Name": config.name,
        "Created": time(record.created_at),
        "Path": record.launch.args.first(),
        "Args": record.launch.args.get(1..),
        "State": state_json(&record),
        "Image": config.image.id,
        "ImageName": config.image.user_specified,
        "LogPath": config.log_path.as_deref().map(text),
        "Pod": record.pod_id,
        "Runtime": pod.map(|pod| pod.config.runtime_handler.as_str()),
        "Mounts": config.mounts.iter().map(mount_json).collect::<Vec<_>>(),
        "Config": {
            "Hostname": pod.map(|pod| pod.config.hostname.as_str()),
            "User": user(&record),
            "Tty": config.tty,
            "OpenStdin": config.stdin,
            "StdinOnce": config.stdin_once,
            "Env": environment(&record),
            "Cmd": record.launch.args,
            "WorkingDir": record.launch.cwd,
            "Labels": config.labels,
            "StopSignal": record.launch.stop_signal,
        },
        "HostConfig": host_config(&record, pod),
        "NetworkSettings": {
            "IPAddresses": pod.and_then(|pod| pod.network.as_ref()).map(|network| {
                network.ips.iter().map(ToString::to_string).collect::<Vec<_>>()
            }),
            "Ports": pod.map(ports),
        },
    })
}

fn state_json(record: &ContainerRecord) -> Value {
    let (started, exit) = (record.started.as_ref(), record.exit.as_ref());
    let running = record.state() == ContainerState::Running;
    json!({
        "Status": state_name(record),
        "Running": running,
        "Pid": started.filter(|_| running).map_or(0, |started| started.pid),
        "ExitCode": exit.map_or(0, |exit| exit.code),
        "OOMKilled": exit.is_some_and(|exit| exit.cause == Cause::OutOfMemory),
        "Error": exit.map(Exit::reason).unwrap_or_default(),
        "End": exit,
        "StartedAt": started.map_or_else(|| NEVER.to_owned(), |started| time(started.at)),
        "FinishedAt": exit.map_or_else(|| NEVER.to_owned(), |exit: &Exit| time(exit.at)),
    })
}

fn user(record: &ContainerRecord) -> &str {
    match record.config.security.user.name.as_str() {
        "" => &record.launch.image_user,
        given => given,
    }
}

fn environment(record: &ContainerRecord) -> Vec<String> {
    let entry =
        |(key, value): &(String, Vec<u8>)| format!("{key}={}", String::from_utf8_lossy(value));
    record.launch.env.iter().map(entry).collect()
}

fn mount_json(mount: &Mount) -> Value {
    let (kind, source) = match &mount.source {
        MountSource::Host(path) => ("bind", text(path)),
        MountSource::Image { reference, .. } => ("image", reference.clone()),
    };
    json!({
        "Type": kind,
        "Source": source,
        "Destination": text(&mount.destination),
        "RW": !mount.readonly,
    })
}

fn host_config(record: &ContainerRecord, pod: Option<&PodRecord>) -> Value {
    let config = &record.config;
    let security = &config.security;
    let recorded = record.resources();
    let resources = match record.state() {
        ContainerState::Running => record.cgroup.in_force(&recorded),
        _ => recorded,
    };
    json!({
        "NetworkMode": pod.map(network_name),
        "AutoRemove": pod.is_some_and(|pod| pod.config.annotations.contains_key(AUTO_REMOVE)),
        "Privileged": security.privileged,
        "ReadonlyRootfs": security.readonly_rootfs,
        "CapAdd": security.capabilities.add,
        "CapDrop": security.capabilities.drop,
        "Memory": resources.memory_limit.unwrap_or(0),
        "CpuShares": resources.cpu_shares.unwrap_or(0),
        "CpuPeriod": resources.cpu_period.unwrap_or(0),
        "CpuQuota": resources.cpu_quota.unwrap_or(0),
        "CpusetCpus": resources.cpuset_cpus,
        "CpusetMems": resources.cpuset_mems,
        "MemorySwap": resources.memory_swap.unwrap_or(0),
        "MemoryReservation": resources.memory_reservation.unwrap_or(0),
        "PidsLimit": resources.pids_limit.unwrap_or(0),
        "BlkioWeight": resources.blkio_weight.unwrap_or(0),
        "Resources": { "Base": config.resources, "Overlays": record.overlays, "InForce": resources },
        "LogConfig": config.log_rotation.map(|rotation| json!({
            "max-size": rotation.max_bytes,
            "max-file": rotation.max_files,
        })),
    })
}

/// As docker has it: `{"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}`.
fn ports(pod: &PodRecord) -> Map<String, Value> {
    let mut ports = Map::new();
    for mapping in &pod.config.port_mappings {
        let PortMapping {
            protocol,
            container_port,
            host_port,
            host_ip,
        } = mapping;
        let protocol = match protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        let bound = ports
            .entry(format!("{container_port}/{protocol}"))
            .or_insert_with(|| json!([]));
        if let Value::Array(bound) = bound {
            bound.push(json!({"HostIp": host_ip, "HostPort": host_port.to_string()}));
        }
    }
    ports
}

fn image_json(image: &Image) -> Value {
    let config = &image.config;
    json!({
        "Id": image.id,
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Created": image.created,
        "Author": image.author,
        "Architecture": image.architecture,
        "Os": "linux",
        "Size": image.size,
        "Pinned": image.pinned,
        "Config": {
            "User": config.user,
            "Env": config.env,
            "Entrypoint": config.entrypoint,
            "Cmd": config.cmd,
            "WorkingDir": config.working_dir,
            "Labels": config.labels,
            "StopSignal": config.stop_signal,
            "ExposedPorts": config.exposed_ports,
            "Volumes": config.volumes,
        },
    })
}
