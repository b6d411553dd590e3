//! Mounts of a container.

use std::path::PathBuf;

use joey_proto::cri;
use joey_runtime::model::{Mount, MountSource, Propagation};

use super::{id_mappings, no_nul, unknown_value};
use crate::status::{Failure, Result, invalid};

/// Checks and maps one mount; `image_id` gives the id of a present image by any of its names.
pub(super) fn mount(
    mount: &cri::Mount,
    image_id: &impl Fn(&str) -> Option<String>,
) -> Result<Mount> {
    let path = &mount.container_path;
    if path.is_empty() {
        return Err(invalid("mounts.container_path is empty"));
    }
    no_nul(path.as_bytes(), "mounts.container_path")?;
    no_nul(mount.host_path.as_bytes(), "mounts.host_path")?;
    let propagation = propagation(mount.propagation)?;
    if mount.recursive_read_only && !(mount.readonly && propagation == Propagation::Private) {
        return Err(invalid(format!(
            "mount at {path:?}: recursive_read_only needs readonly and PROPAGATION_PRIVATE"
        )));
    }
    if mount.uid_mappings.is_empty() != mount.gid_mappings.is_empty() {
        return Err(invalid(format!(
            "mount at {path:?}: uidMappings and gidMappings go together"
        )));
    }
    Ok(Mount {
        source: source(mount, image_id)?,
        // Relative paths are taken from the root, as other runtimes do.
        destination: PathBuf::from("/").join(path),
        readonly: mount.readonly,
        recursive_readonly: mount.recursive_read_only,
        selinux_relabel: mount.selinux_relabel,
        propagation,
        uids: id_mappings(&mount.uid_mappings),
        gids: id_mappings(&mount.gid_mappings),
    })
}

fn source(mount: &cri::Mount, image_id: &impl Fn(&str) -> Option<String>) -> Result<MountSource> {
    let path = &mount.container_path;
    let image = mount.image.as_ref().filter(|image| !image.image.is_empty());
    match image {
        None if mount.host_path.is_empty() => Err(invalid(format!(
            "mount at {path:?}: neither host_path nor image is given"
        ))),
        // The kubelet tells image_sub_path for any volume with a subPath, of which host_path has it.
        None => Ok(MountSource::Host(PathBuf::from(&mount.host_path))),
        Some(_) if !mount.host_path.is_empty() => Err(invalid(format!(
            "mount at {path:?}: host_path and image exclude each other"
        ))),
        Some(_) if !mount.readonly => Err(invalid(format!(
            "mount at {path:?}: an image can only be mounted readonly"
        ))),
        Some(image) => {
            let id = image_id(&image.image).ok_or_else(|| Failure::NoImageForMount {
                image: image.image.clone(),
                path: path.clone(),
            })?;
            Ok(MountSource::Image {
                id,
                reference: image.image.clone(),
                user_specified: image.user_specified_image.clone(),
                sub_path: mount.image_sub_path.clone(),
            })
        }
    }
}

fn propagation(mode: i32) -> Result<Propagation> {
    match cri::MountPropagation::try_from(mode) {
        Ok(cri::MountPropagation::PropagationPrivate) => Ok(Propagation::Private),
        Ok(cri::MountPropagation::PropagationHostToContainer) => Ok(Propagation::HostToContainer),
        Ok(cri::MountPropagation::PropagationBidirectional) => Ok(Propagation::Bidirectional),
        Err(_) => Err(unknown_value("mounts.propagation", mode)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> cri::Mount {
        cri::Mount {
            container_path: "/data".into(),
            host_path: "/srv/data".into(),
            ..cri::Mount::default()
        }
    }

    fn image() -> cri::Mount {
        cri::Mount {
            container_path: "/models".into(),
            readonly: true,
            image: Some(cri::ImageSpec {
                image: "here".into(),
                user_specified_image: "shop/data:1".into(),
                ..cri::ImageSpec::default()
            }),
            image_sub_path: "v1".into(),
            ..cri::Mount::default()
        }
    }

    fn map(given: &cri::Mount) -> Result<Mount> {
        mount(given, &|name| {
            (name == "here").then(|| "sha256:1".to_owned())
        })
    }

    #[test]
    fn every_field_is_mapped_and_mapped_back() {
        let mapping = |host_id| cri::IdMapping {
            host_id,
            container_id: 0,
            length: 65536,
        };
        let given = cri::Mount {
            readonly: true,
            selinux_relabel: true,
            recursive_read_only: true,
            uid_mappings: vec![mapping(1000)],
            gid_mappings: vec![mapping(2000)],
            ..host()
        };
        let mapped = map(&given).unwrap();
        assert_eq!(mapped.source, MountSource::Host("/srv/data".into()));
        assert!(mapped.readonly && mapped.recursive_readonly && mapped.selinux_relabel);
        assert_eq!(
            (mapped.uids[0].host_id, mapped.gids[0].host_id),
            (1000, 2000)
        );
        assert_eq!(crate::reply::mount(&mapped), given);
    }

    #[test]
    fn every_propagation_is_mapped_and_mapped_back() {
        for (mode, wanted) in [
            (0, Propagation::Private),
            (1, Propagation::HostToContainer),
            (2, Propagation::Bidirectional),
        ] {
            let given = cri::Mount {
                propagation: mode,
                ..host()
            };
            let mapped = map(&given).unwrap();
            assert_eq!(mapped.propagation, wanted);
            assert_eq!(crate::reply::mount(&mapped), given);
        }
    }

    #[test]
    fn an_image_mount_names_the_image_in_the_status() {
        let mapped = map(&image()).unwrap();
        assert_eq!(
            mapped.source,
            MountSource::Image {
                id: "sha256:1".into(),
                reference: "here".into(),
                user_specified: "shop/data:1".into(),
                sub_path: "v1".into()
            }
        );
        let back = crate::reply::mount(&mapped);
        let shown = back.image.unwrap();
        assert_eq!(shown.image_ref, "sha256:1");
        assert_eq!(shown.user_specified_image, "shop/data:1");
        assert_eq!(back.image_sub_path, "v1");
        assert_eq!(back.host_path, "");
    }

    #[test]
    fn an_absent_image_fails_with_the_prefix_the_kubelet_knows() {
        let mut given = image();
        given.image.as_mut().unwrap().image = "elsewhere".into();
        let failure = map(&given).unwrap_err();
        assert!(
            failure.message().starts_with("ImageVolumeMountFailed: "),
            "{failure}"
        );
    }

    #[test]
    fn a_sub_path_beside_a_host_path_says_nothing_new() {
        let given = cri::Mount {
            image_sub_path: "v1".into(),
            ..host()
        };
        let mapped = map(&given).unwrap();
        assert_eq!(mapped.source, MountSource::Host("/srv/data".into()));
    }

    #[test]
    fn contradictions_are_refused() {
        let rro = cri::Mount {
            recursive_read_only: true,
            ..host()
        };
        let refused = [
            cri::Mount {
                container_path: String::new(),
                ..host()
            },
            cri::Mount {
                host_path: String::new(),
                ..host()
            },
            cri::Mount {
                propagation: 3,
                ..host()
            },
            rro.clone(),
            cri::Mount {
                readonly: true,
                propagation: 1,
                ..rro.clone()
            },
            cri::Mount {
                readonly: true,
                propagation: 2,
                ..rro
            },
            cri::Mount {
                uid_mappings: vec![cri::IdMapping::default()],
                ..host()
            },
            cri::Mount {
                host_path: "/srv".into(),
                ..image()
            },
            cri::Mount {
                readonly: false,
                ..image()
            },
        ];
        for given in refused {
            assert!(matches!(map(&given), Err(Failure::Invalid(_))), "{given:?}");
        }
    }
}
