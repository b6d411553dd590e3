//! Container Device Interface: devices that vendors describe in files.
//!
//! Source: <https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md>, 1.0.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Cause, Error, Result};
use crate::model::{ContainerConfig, Device, Mount, MountSource, Propagation};

/// Later folders win.
const FOLDERS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
const MAX_SPEC_BYTES: u64 = 4 << 20;
/// How devices are asked for by annotation, from before CRI had a field.
const ANNOTATION_PREFIX: &str = "cdi.k8s.io/";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Spec {
    kind: String,
    #[serde(default)]
    devices: Vec<SpecDevice>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecDevice {
    name: String,
    #[serde(default)]
    container_edits: Edits,
}

/// What a device changes in a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Edits {
    env: Vec<String>,
    device_nodes: Vec<DeviceNode>,
    mounts: Vec<MountEdit>,
    hooks: Vec<Hook>,
    #[serde(rename = "additionalGids")]
    additional_gids: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeviceNode {
    path: PathBuf,
    #[serde(default)]
    host_path: Option<PathBuf>,
    #[serde(default)]
    permissions: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MountEdit {
    host_path: PathBuf,
    container_path: PathBuf,
    #[serde(default)]
    options: Vec<String>,
}

/// A program that is run at a point of a container's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hook {
    hook_name: HookName,
    pub(crate) path: PathBuf,
    #[serde(default)]
    pub(crate) args: Vec<String>,
    #[serde(default)]
    pub(crate) env: Vec<String>,
    /// Seconds.
    #[serde(default)]
    timeout: Option<i64>,
}

/// When a hook is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum HookName {
    #[serde(rename = "prestart")]
    PreStart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    #[serde(rename = "poststart")]
    PostStart,
    #[serde(rename = "poststop")]
    PostStop,
}

impl Hook {
    /// None: it has none.
    pub(crate) fn time_out(&self) -> Option<Duration> {
        let seconds = u64::try_from(self.timeout?).ok()?;
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }
}

/// The edits of every device that a container asks for, by field or annotation.
///
/// # Errors
/// [`Error::Invalid`] for a device that no file describes, or a file that is wrong.
pub(crate) fn edits(config: &ContainerConfig) -> Result<Edits> {
    let mut names: Vec<&str> = config.cdi_devices.iter().map(String::as_str).collect();
    for (key, value) in &config.annotations {
        if key.starts_with(ANNOTATION_PREFIX) {
            names.extend(
                value
                    .split(',')
                    .map(str::trim)
                    .filter(|name| !names.contains(name))
                    .collect::<Vec<_>>(),
            );
        }
    }
    if names.is_empty() {
        return Ok(Edits::default());
    }
    resolve(&names, &FOLDERS.map(Path::new))
}

fn resolve(names: &[&str], folders: &[&Path]) -> Result<Edits> {
    let (devices, specs, broken) = read_specs(folders);
    let mut edits = Edits::default();
    let mut used = Vec::new();
    for name in names {
        let (spec, device) = devices.get(*name).ok_or_else(|| {
            let unread = broken.iter().map(|error| format!("; {}", error.chain()));
            Error::invalid(format!(
                "CDI device {name:?} is described in none of {folders:?}{}",
                unread.collect::<String>()
            ))
        })?;
        if !used.contains(spec) {
            used.push(*spec);
            edits.extend(&specs[*spec].container_edits);
        }
        edits.extend(&specs[*spec].devices[*device].container_edits);
    }
    Ok(edits)
}

/// Where a device is: its file's and its own place.
type Places = HashMap<String, (usize, usize)>;

/// One vendor's broken file takes no other's devices away: it is told with a device that is missing.
fn read_specs(folders: &[&Path]) -> (Places, Vec<Spec>, Vec<Error>) {
    let (mut devices, mut specs, mut broken) = (HashMap::new(), Vec::new(), Vec::new());
    for folder in folders {
        let Ok(entries) = std::fs::read_dir(folder) else {
            continue;
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let spec = match read_spec(&path) {
                Ok(Some(spec)) => spec,
                Ok(None) => continue,
                Err(error) => {
                    broken.push(error);
                    continue;
                }
            };
            for (place, device) in spec.devices.iter().enumerate() {
                devices.insert(
                    format!("{}={}", spec.kind, device.name),
                    (specs.len(), place),
                );
            }
            specs.push(spec);
        }
    }
    (devices, specs, broken)
}

/// None for files of other kinds.
fn read_spec(path: &Path) -> Result<Option<Spec>> {
    let yaml = match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => false,
        Some("yaml" | "yml") => true,
        _ => return Ok(None),
    };
    let file = |error| Error::file("read the CDI spec", path, error);
    let size = std::fs::metadata(path).map_err(file)?.len();
    if size > MAX_SPEC_BYTES {
        return Err(Error::invalid(format!(
            "CDI spec {} has {size} bytes",
            path.display()
        )));
    }
    let bytes = std::fs::read(path).map_err(file)?;
    parse(&bytes, yaml)
        .map(Some)
        .map_err(|e| Error::step(format!("parse the CDI spec {}", path.display()), e))
}

pub(crate) fn parse(spec: &[u8], yaml: bool) -> std::result::Result<Spec, Cause> {
    if yaml {
        Ok(serde_yaml_ng::from_slice(spec)?)
    } else {
        Ok(serde_json::from_slice(spec)?)
    }
}

impl Edits {
    fn extend(&mut self, other: &Self) {
        self.env.extend(other.env.iter().cloned());
        self.device_nodes.extend(other.device_nodes.iter().cloned());
        self.mounts.extend(other.mounts.iter().cloned());
        self.hooks.extend(other.hooks.iter().cloned());
        self.additional_gids.extend(&other.additional_gids);
    }

    /// The container's configuration with these edits on top.
    pub(crate) fn apply(&self, config: &mut ContainerConfig) {
        for node in &self.device_nodes {
            config.devices.push(Device {
                host_path: node.host_path.clone().unwrap_or_else(|| node.path.clone()),
                container_path: node.path.clone(),
                permissions: node.permissions.clone().unwrap_or_else(|| "rwm".into()),
            });
        }
        for mount in &self.mounts {
            let has = |option: &str| mount.options.iter().any(|given| given == option);
            config.mounts.push(Mount {
                source: MountSource::Host(mount.host_path.clone()),
                destination: mount.container_path.clone(),
                readonly: has("ro"),
                recursive_readonly: false,
                selinux_relabel: false,
                propagation: match () {
                    () if has("rshared") || has("shared") => Propagation::Bidirectional,
                    () if has("rslave") || has("slave") => Propagation::HostToContainer,
                    () => Propagation::Private,
                },
                uids: Vec::new(),
                gids: Vec::new(),
            });
        }
        let groups = self.additional_gids.iter().map(|gid| i64::from(*gid));
        config
            .security
            .user
            .supplemental_groups
            .extend(groups.filter(|gid| *gid != 0));
    }

    /// `KEY=value` entries.
    pub(crate) fn env(&self) -> &[String] {
        &self.env
    }

    /// What is run after the container's end, in order.
    pub(crate) fn poststop_hooks(&self) -> impl Iterator<Item = &Hook> {
        self.hooks
            .iter()
            .filter(|hook| hook.hook_name == HookName::PostStop)
    }

    /// `hooks` of the OCI spec: those that libcontainer runs; null without any.
    pub(crate) fn spec_hooks(&self) -> serde_json::Value {
        let mut hooks = serde_json::json!(null);
        for hook in &self.hooks {
            if hook.hook_name == HookName::PostStop {
                continue;
            }
            let mut entry = serde_json::json!({
                "path": hook.path, "args": hook.args, "env": hook.env,
            });
            if let Some(time_out) = hook.time_out() {
                entry["timeout"] = time_out.as_secs().into();
            }
            let name = serde_json::json!(hook.hook_name);
            let list = &mut hooks[name.as_str().unwrap_or_default()];
            match list.as_array_mut() {
                Some(list) => list.push(entry),
                None => *list = serde_json::json!([entry]),
            }
        }
        hooks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = r#"
cdiVersion: "0.6.0"
kind: vendor.com/gpu
containerEdits: { env: [ALL=1] }
devices:
- name: "0"
  containerEdits:
    deviceNodes: [{ path: /dev/gpu0, hostPath: /dev/null, permissions: rw }]
    mounts: [{ hostPath: /etc, containerPath: /vendor, options: [ro, rslave] }]
    hooks:
    - { hookName: createContainer, path: /bin/true, args: ["true"] }
    - { hookName: poststop, path: /bin/false, timeout: 3 }
- name: "1"
  containerEdits: { env: [ONE=1] }
"#;

    #[test]
    fn devices_bring_their_own_edits_and_their_files_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("gpu.yaml"), SPEC).unwrap();
        std::fs::write(folder.path().join("README"), "not a spec").unwrap();
        let edits = resolve(&["vendor.com/gpu=0", "vendor.com/gpu=1"], &[folder.path()]).unwrap();
        assert_eq!(edits.env(), ["ALL=1", "ONE=1"]);
        let mut config = ContainerConfig::default();
        edits.apply(&mut config);
        assert_eq!(config.devices[0].host_path, Path::new("/dev/null"));
        assert!(config.mounts[0].readonly);
        assert_eq!(config.mounts[0].propagation, Propagation::HostToContainer);
        assert_eq!(
            edits.spec_hooks()["createContainer"][0]["path"],
            "/bin/true"
        );
        assert_eq!(edits.spec_hooks().as_object().unwrap().len(), 1);
        let after: Vec<&Hook> = edits.poststop_hooks().collect();
        assert_eq!(after.len(), 1);
        assert_eq!(after[0].path, Path::new("/bin/false"));
        assert_eq!(after[0].time_out(), Some(Duration::from_secs(3)));
    }

    #[test]
    fn a_hook_at_an_unknown_point_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let spec = SPEC.replace("createContainer", "beforeLunch");
        std::fs::write(folder.path().join("gpu.yaml"), spec).unwrap();
        let refused = resolve(&["vendor.com/gpu=0"], &[folder.path()]).unwrap_err();
        let text = refused.chain();
        assert!(
            text.contains("gpu.yaml") && text.contains("beforeLunch"),
            "{text}"
        );
    }

    #[test]
    fn an_unknown_device_and_a_wrong_file_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let unknown = resolve(&["a.b/c=d"], &[folder.path()]).unwrap_err();
        assert!(unknown.to_string().contains("a.b/c=d"));
        std::fs::write(folder.path().join("bad.json"), "{").unwrap();
        let wrong = resolve(&["a.b/c=d"], &[folder.path()]).unwrap_err();
        assert!(wrong.to_string().contains("bad.json"));
        std::fs::write(folder.path().join("gpu.yaml"), SPEC).unwrap();
        let edits = resolve(&["vendor.com/gpu=1"], &[folder.path()]).unwrap();
        assert_eq!(edits.env(), ["ALL=1", "ONE=1"]);
    }
}
