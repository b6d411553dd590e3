//! The `info` maps of verbose answers: JSON for people and for tools that know Joey.

use std::collections::HashMap;

use joey_image::Image;
use joey_runtime::RuntimeInfo;
use joey_runtime::model::{ContainerRecord, Exit, PodRecord};
use serde_json::{Value, json};

use super::container::in_force;
use crate::service::Options;

type Info = HashMap<String, String>;

fn info(key: &str, value: &Value) -> Info {
    [(key.to_owned(), value.to_string())].into()
}

/// What cannot be written as JSON is shown as null rather than failing the call.
fn value(of: &impl serde::Serialize) -> Value {
    serde_json::to_value(of).unwrap_or(Value::Null)
}

pub(crate) fn pod_info(pod: &PodRecord) -> Info {
    info(
        "info",
        &json!({
            "pid": pod.shim.map_or(0, |(pid, _)| pid),
            "initPid": pod.init_pid,
            "network": value(&pod.network),
            "runtimeHandler": pod.config.runtime_handler,
            "cause": pod.cause,
            "resources": { "overlays": value(&pod.overlays) },
            "config": value(&pod.config),
        }),
    )
}

pub(crate) fn container_info(container: &ContainerRecord) -> Info {
    let mut config = value(&container.config);
    // Values are bytes in the record; people read text.
    config["env"] = container
        .config
        .env
        .iter()
        .map(|(key, value)| format!("{key}={}", String::from_utf8_lossy(value)))
        .collect();
    info(
        "info",
        &json!({
            "sandboxID": container.pod_id,
            "pid": container.started.as_ref().map_or(0, |started| started.pid),
            "cgroup": container.cgroup.path(),
            "resources": {
                "base": value(&container.config.resources),
                "overlays": value(&container.overlays),
                "inForce": value(&in_force(container, container.state())),
            },
            "exit": value(&container.exit),
            "exitReason": container.exit.as_ref().map(Exit::reason),
            "config": config,
        }),
    )
}

/// `config` is the image's config as the registry gave it.
pub(crate) fn image_info(image: &Image, config: &[u8]) -> Info {
    let spec: Value = serde_json::from_slice(config).unwrap_or(Value::Null);
    info(
        "info",
        &json!({ "imageSpec": spec, "isArtifact": image.is_artifact }),
    )
}

/// `config` holds the folders under the names that clients of other runtimes look for.
pub(crate) fn runtime_info(runtime: &RuntimeInfo, options: &Options) -> Info {
    let features = &runtime.features;
    let config = json!({
        "stateDir": runtime.state,
        "rootDir": runtime.root,
        "cgroupDriver": format!("{:?}", runtime.cgroup_driver).to_lowercase(),
        "cgroupVersion": format!("{:?}", runtime.cgroup_version).to_lowercase(),
        "settings": options.config,
    });
    let host = json!({
        "kernel": runtime.kernel,
        "userNamespaces": features.user_namespaces,
        "recursiveReadOnlyMounts": features.recursive_readonly,
        "idmappedMounts": features.idmapped_mounts,
        "apparmor": features.apparmor,
        "selinux": features.selinux,
        "seccomp": features.seccomp,
        "psi": features.psi,
        "swap": features.swap,
    });
    [
        ("config".to_owned(), config.to_string()),
        ("host".to_owned(), host.to_string()),
    ]
    .into()
}
