//! Device nodes, and the device rules of the cgroup.

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use joey_cgroup::{DeviceKind, DeviceRule, Resources, default_devices};
use joey_proto::shim::Bind;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::model::{ContainerConfig, Device};
use crate::wire::text;

/// A node to be made in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    host: PathBuf,
    path: PathBuf,
    block: bool,
    major: u32,
    minor: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    permissions: String,
}

/// The cgroup limits of a container, device rules included.
pub(crate) fn cgroup_resources(config: &ContainerConfig) -> Result<Resources> {
    let mut resources = config.resources.clone();
    let added = resources.devices.take().unwrap_or_default();
    let mut rules = if has_host_devices(config) {
        vec![DeviceRule::allow_all()]
    } else {
        let mut rules = default_devices();
        for node in nodes(config)? {
            let kind = if node.block {
                DeviceKind::Block
            } else {
                DeviceKind::Char
            };
            rules.push(DeviceRule::new(
                true,
                kind,
                Some(node.major),
                Some(node.minor),
                &node.permissions,
            ));
        }
        rules
    };
    rules.extend(added);
    resources.devices = Some(rules);
    no_swap_by_default(&mut resources);
    Ok(resources)
}

/// No swap unless it is asked for: memory and swap together are the memory limit, or there is none.
fn no_swap_by_default(resources: &mut Resources) {
    let swap = resources.memory_swap.unwrap_or_default();
    let limit = resources.memory_limit.filter(|limit| *limit > 0);
    let asked_for = swap < 0 || (swap > 0 && limit.is_some_and(|limit| swap > limit));
    if let (0, Some(limit)) = (swap, limit) {
        resources.memory_swap = Some(limit);
    }
    resources.no_swap.get_or_insert(!asked_for);
}

impl Node {
    /// Libcontainer makes nodes beneath /dev only, and in a user namespace, which can make none,
    /// it takes the container's name for the host's. `mapped`: in a user namespace.
    fn is_bound(&self, mapped: bool) -> bool {
        mapped || !self.path.starts_with("/dev")
    }
}

/// Devices that are bind mounts of the host's nodes.
pub(super) fn device_binds(config: &ContainerConfig, mapped: bool) -> Result<Vec<Bind>> {
    let nodes = nodes(config)?.into_iter();
    let bound = nodes.filter(|node| node.is_bound(mapped));
    Ok(bound
        .map(|node| Bind {
            source: text(&node.host),
            destination: text(&node.path),
            ..Bind::default()
        })
        .collect())
}

/// `linux.devices` of the OCI spec; the others are [`device_binds`].
pub(super) fn spec_devices(config: &ContainerConfig, mapped: bool) -> Result<Vec<Value>> {
    let nodes = nodes(config)?;
    Ok(nodes
        .iter()
        .filter(|node| !node.is_bound(mapped))
        .map(|node| {
            json!({
                "path": node.path,
                "type": if node.block { "b" } else { "c" },
                "major": node.major,
                "minor": node.minor,
                "fileMode": node.mode,
                "uid": node.uid,
                "gid": node.gid,
            })
        })
        .collect())
}

/// # Errors
/// Names a device asked for that is none.
pub(crate) fn check_devices(config: &ContainerConfig) -> Result<()> {
    asked_for(config).map(drop)
}

fn nodes(config: &ContainerConfig) -> Result<Vec<Node>> {
    let mut nodes = Vec::new();
    if has_host_devices(config) {
        let every = Device {
            host_path: "/dev".into(),
            container_path: "/dev".into(),
            permissions: "rwm".into(),
        };
        collect(&every.host_path.clone(), &every, &mut nodes)?;
        nodes.retain(|node| !made_for_every_container(&node.path));
    }
    replace(&mut nodes, asked_for(config)?);
    Ok(nodes)
}

/// Adds devices in the place of those that have their paths: a privileged container may ask for
/// one that it gets anyway, or for another in its place.
fn replace(nodes: &mut Vec<Node>, asked: Vec<Node>) {
    nodes.retain(|node| asked.iter().all(|other| other.path != node.path));
    nodes.extend(asked);
}

fn asked_for(config: &ContainerConfig) -> Result<Vec<Node>> {
    let mut nodes = Vec::new();
    for device in &config.devices {
        let path = std::fs::canonicalize(&device.host_path)
            .map_err(|e| Error::file("find the device", &device.host_path, e))?;
        let mut asked = Vec::new();
        collect(&path, device, &mut asked)?;
        if asked.is_empty() {
            return Err(Error::invalid(format!(
                "{} is no device",
                device.host_path.display()
            )));
        }
        replace(&mut nodes, asked);
    }
    Ok(nodes)
}

fn has_host_devices(config: &ContainerConfig) -> bool {
    config.security.privileged && !config.security.privileged_without_host_devices
}

fn made_for_every_container(path: &Path) -> bool {
    const COMMON: [&str; 8] = [
        "null", "zero", "full", "random", "urandom", "tty", "ptmx", "console",
    ];
    const FOLDERS: [&str; 4] = ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/hugepages"];
    COMMON
        .iter()
        .any(|name| path == Path::new("/dev").join(name))
        || FOLDERS.iter().any(|folder| path.starts_with(folder))
}

fn collect(host: &Path, device: &Device, nodes: &mut Vec<Node>) -> Result<()> {
    let metadata =
        std::fs::symlink_metadata(host).map_err(|e| Error::file("find the device", host, e))?;
    let kind = metadata.file_type();
    if kind.is_dir() {
        let entries = std::fs::read_dir(host).map_err(|e| Error::file("read", host, e))?;
        for entry in entries {
            let entry = entry.map_err(|e| Error::file("read", host, e))?;
            let below = Device {
                container_path: device.container_path.join(entry.file_name()),
                ..device.clone()
            };
            match collect(&entry.path(), &below, nodes) {
                // Devices come and go.
                Err(Error::File { source, .. }) if source.kind() == ErrorKind::NotFound => {}
                collected => collected?,
            }
        }
    } else if kind.is_block_device() || kind.is_char_device() {
        let number = metadata.rdev();
        nodes.push(Node {
            host: host.to_owned(),
            path: device.container_path.clone(),
            block: kind.is_block_device(),
            major: rustix::fs::major(number),
            minor: rustix::fs::minor(number),
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            permissions: device.permissions.clone(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_becomes_a_node_and_a_rule() {
        let config = ContainerConfig {
            devices: vec![Device {
                host_path: "/dev/null".into(),
                container_path: "/dev/mine".into(),
                permissions: "rw".into(),
            }],
            ..ContainerConfig::default()
        };
        let devices = spec_devices(&config, false).unwrap();
        assert_eq!(devices[0]["path"], "/dev/mine");
        assert_eq!(
            (&devices[0]["major"], &devices[0]["minor"]),
            (&json!(1), &json!(3))
        );
        assert!(device_binds(&config, false).unwrap().is_empty());
        assert!(spec_devices(&config, true).unwrap().is_empty());
        let bound = device_binds(&config, true).unwrap();
        assert_eq!(bound[0].source, "/dev/null");
        assert_eq!(bound[0].destination, "/dev/mine");
        let rules = cgroup_resources(&config).unwrap().devices.unwrap();
        let last = rules.last().unwrap();
        assert!(last.allow && last.read && last.write && !last.mknod);
    }

    #[test]
    fn privileged_has_the_hosts_devices_once_and_what_it_asks_for_in_their_place() {
        let mut config = ContainerConfig::default();
        config.security.privileged = true;
        config.devices = ["/dev/kmsg", "/dev/zero"]
            .map(|host| Device {
                host_path: host.into(),
                container_path: "/dev/kmsg".into(),
                permissions: "r".into(),
            })
            .to_vec();
        let kmsg = |config: &ContainerConfig| {
            let devices = spec_devices(config, false).unwrap();
            let minors = devices.iter().filter(|it| it["path"] == "/dev/kmsg");
            minors
                .map(|it| it["minor"].as_u64().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(kmsg(&config), [5]);
        assert!(spec_devices(&config, false).unwrap().len() > 1);
        config.security.privileged_without_host_devices = true;
        assert_eq!(spec_devices(&config, false).unwrap().len(), 1);
        config.devices.clear();
        assert_eq!(spec_devices(&config, false).unwrap().len(), 0);
        config.security.privileged_without_host_devices = false;
        assert_eq!(kmsg(&config), [11]);
    }

    #[test]
    fn a_file_is_no_device() {
        let config = ContainerConfig {
            devices: vec![Device {
                host_path: "/etc/hostname".into(),
                container_path: "/dev/x".into(),
                permissions: "rwm".into(),
            }],
            ..ContainerConfig::default()
        };
        assert!(
            spec_devices(&config, false)
                .unwrap_err()
                .to_string()
                .contains("/etc/hostname")
        );
    }

    #[test]
    fn no_swap_unless_asked_for() {
        let mut config = ContainerConfig::default();
        config.resources.memory_limit = Some(1 << 20);
        assert_eq!(
            cgroup_resources(&config).unwrap().memory_swap,
            Some(1 << 20)
        );
        assert_eq!(cgroup_resources(&config).unwrap().no_swap, Some(true));
        config.resources.memory_swap = Some(2 << 20);
        let asked = cgroup_resources(&config).unwrap();
        assert_eq!(
            (asked.memory_swap, asked.no_swap),
            (Some(2 << 20), Some(false))
        );
        let unlimited = cgroup_resources(&ContainerConfig::default()).unwrap();
        assert_eq!(
            (unlimited.memory_swap, unlimited.no_swap),
            (None, Some(true))
        );
    }
}
