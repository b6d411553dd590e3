//! The bind mounts of a container: what was asked for, and the pod's shared files.

use std::path::{Path, PathBuf};

use joey_proto::shim::{self, Bind};

use super::devices::device_binds;
use crate::container::IMAGE_VOLUME_ERROR;
use crate::error::Result;
use crate::model::{ContainerRecord, Mount, MountSource, NamespaceMode, PodRecord, Propagation};
use crate::runtime::Runtime;
use crate::wire::{id_mappings, text};

/// Every bind mount, in the order they are made: parents before what is beneath them.
pub(crate) async fn binds(
    runtime: &Runtime,
    pod: &PodRecord,
    record: &ContainerRecord,
    file_label: &str,
) -> Result<Vec<Bind>> {
    let mut binds = pod_files(runtime, pod, record, file_label);
    let mounts = record.config.mounts.iter().map(|mount| async move {
        Ok(match &mount.source {
            MountSource::Host(path) => {
                let source = runtime.host_paths.resolve(path).await?;
                let label = if mount.selinux_relabel {
                    file_label
                } else {
                    ""
                };
                host_bind(source, mount, label)
            }
            MountSource::Image { id, sub_path, .. } => {
                let layers = record.mounted_images.get(id).map(Vec::as_slice);
                image_bind(mount, layers.unwrap_or_default(), sub_path)
            }
        })
    });
    binds.extend(futures::future::try_join_all(mounts).await?);
    let mapped = pod.config.user_namespace.is_some();
    binds.extend(device_binds(&record.config, mapped)?);
    binds.sort_by_key(|bind| Path::new(&bind.destination).components().count());
    Ok(binds)
}

/// The files and the shared memory that every container of a pod sees, unless a mount of its own is
/// in their place.
fn pod_files(
    runtime: &Runtime,
    pod: &PodRecord,
    record: &ContainerRecord,
    file_label: &str,
) -> Vec<Bind> {
    let config = &record.config;
    let taken = |path: &str| {
        config
            .mounts
            .iter()
            .any(|mount| clean(&mount.destination) == Path::new(path))
    };
    let folder = runtime.config.pod_folder(&pod.id);
    let mut binds: Vec<Bind> = ["hostname", "hosts", "resolv.conf"]
        .into_iter()
        .map(|name| (format!("/etc/{name}"), folder.join(name)))
        .filter(|(destination, _)| !taken(destination))
        .map(|(destination, source)| Bind {
            source: text(&source),
            destination,
            readonly: config.security.readonly_rootfs,
            selinux_label: file_label.to_owned(),
            ..Bind::default()
        })
        .collect();
    if !taken("/dev/shm") {
        let own = pod.config.ipc != NamespaceMode::Node;
        binds.push(Bind {
            source: if own {
                String::new()
            } else {
                "/dev/shm".into()
            },
            destination: "/dev/shm".into(),
            pod_shm: own,
            ..Bind::default()
        });
    }
    binds
}

fn host_bind(source: PathBuf, mount: &Mount, label: &str) -> Bind {
    Bind {
        source: text(&source),
        destination: text(&clean(&mount.destination)),
        readonly: mount.readonly,
        recursive_readonly: mount.recursive_readonly,
        recursive: true,
        propagation: match mount.propagation {
            Propagation::Private => shim::Propagation::Private,
            Propagation::HostToContainer => shim::Propagation::HostToContainer,
            Propagation::Bidirectional => shim::Propagation::Bidirectional,
        }
        .into(),
        uid_mappings: id_mappings(&mount.uids),
        gid_mappings: id_mappings(&mount.gids),
        selinux_label: label.to_owned(),
        ..Bind::default()
    }
}

fn image_bind(mount: &Mount, layers: &[PathBuf], sub_path: &str) -> Bind {
    let mut layers = layers.iter().map(|path| text(path));
    Bind {
        source: layers.next().unwrap_or_default(),
        destination: text(&clean(&mount.destination)),
        readonly: true,
        sub_path: sub_path.to_owned(),
        image_layers: layers.collect(),
        uid_mappings: id_mappings(&mount.uids),
        gid_mappings: id_mappings(&mount.gids),
        error_prefix: IMAGE_VOLUME_ERROR.into(),
        ..Bind::default()
    }
}

/// Without `.`, `..` and doubled slashes; `..` at the root stays there.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::from("/");
    for component in path.components() {
        match component {
            std::path::Component::Normal(name) => cleaned.push(name),
            std::path::Component::ParentDir => {
                cleaned.pop();
            }
            _ => {}
        }
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_cleaned() {
        assert_eq!(clean(Path::new("/a//b/./c/../d")), Path::new("/a/b/d"));
        assert_eq!(clean(Path::new("/../etc")), Path::new("/etc"));
    }
}
