//! The part of the OCI runtime spec that libcontainer carries out.
//!
//! Cgroups, the root's overlay, bind mounts and the process are the shim's own.
//! Source: <https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config.md>.

use std::path::Path;

use joey_cgroup::Version;
use serde_json::{Value, json};

use super::devices::spec_devices;
use crate::error::{Error, Result};
use crate::model::{ContainerRecord, NamespaceMode, PidMode, PodRecord};

/// The bundle's `config.json`.
pub(crate) fn spec(
    pod: &PodRecord,
    record: &ContainerRecord,
    rootfs: &Path,
    cgroups: Version,
    file_label: &str,
) -> Result<Vec<u8>> {
    let security = &record.config.security;
    let (masked, readonly) = if security.privileged {
        (&[][..], &[][..])
    } else {
        (&security.masked_paths[..], &security.readonly_paths[..])
    };
    let value = json!({
        "ociVersion": "1.2.0",
        "root": { "path": rootfs },
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": record.launch.args,
            "cwd": "/",
        },
        "mounts": mounts(pod, security.privileged, file_label),
        "hooks": record.edits.spec_hooks(),
        "linux": {
            "namespaces": namespaces(pod, record, cgroups),
            "devices": spec_devices(&record.config, pod.config.user_namespace.is_some())?,
            "maskedPaths": masked,
            "readonlyPaths": readonly,
        },
    });
    serde_json::to_vec(&value).map_err(|e| Error::step("encode the OCI spec", e))
}

fn namespaces(pod: &PodRecord, record: &ContainerRecord, cgroups: Version) -> Vec<Value> {
    let own_network = pod.config.network != NamespaceMode::Node;
    let wanted = [
        ("mount", true),
        ("network", own_network),
        ("uts", own_network),
        ("ipc", pod.config.ipc != NamespaceMode::Node),
        ("pid", record.config.pid != PidMode::Node),
        ("user", pod.config.user_namespace.is_some()),
        (
            "cgroup",
            cgroups == Version::V2 && !record.config.security.privileged,
        ),
    ];
    wanted
        .into_iter()
        .filter(|(_, wanted)| *wanted)
        .map(|(kind, _)| json!({ "type": kind }))
        .collect()
}

fn mounts(pod: &PodRecord, privileged: bool, file_label: &str) -> Vec<Value> {
    let mount = |kind: &str, source: &str, destination: &str, options: &[&str]| json!({ "type": kind, "source": source, "destination": destination, "options": options });
    let sysfs_options: &[&str] = if privileged {
        &["nosuid", "noexec", "nodev", "rw"]
    } else {
        &["nosuid", "noexec", "nodev", "ro"]
    };
    let mut mounts = vec![
        mount("proc", "proc", "/proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "tmpfs",
            "tmpfs",
            "/dev",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "devpts",
            "devpts",
            "/dev/pts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount(
            "mqueue",
            "mqueue",
            "/dev/mqueue",
            &["nosuid", "noexec", "nodev"],
        ),
        mount("sysfs", "sysfs", "/sys", sysfs_options),
        mount("cgroup", "cgroup", "/sys/fs/cgroup", sysfs_options),
    ];
    // The message queues of the host's IPC namespace can't be mounted from a user namespace.
    if pod.config.ipc == NamespaceMode::Node && pod.config.user_namespace.is_some() {
        mounts.retain(|mount| mount["type"] != "mqueue");
    }
    if !file_label.is_empty() {
        let labelled = |mount: &&mut Value| mount["type"] == "tmpfs" || mount["type"] == "devpts";
        for mount in mounts.iter_mut().filter(labelled) {
            if let Some(options) = mount["options"].as_array_mut() {
                // Each option is an fsconfig call of its own: quotes would be part of the label.
                options.push(json!(format!("context={file_label}")));
            }
        }
    }
    mounts
}
