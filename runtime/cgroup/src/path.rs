//! Names of groups: the kubelet's parents, slices, paths beneath a hierarchy's root.

use std::path::{Component, Path, PathBuf};

/// Where a group lies beneath every hierarchy's root, without a leading slash, and the systemd unit
/// it belongs to, if any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    pub(crate) unit: Option<String>,
}

/// Why a parent or a name can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It would lead out of the hierarchy.
    #[error("cgroup path {0:?} holds '..' or a NUL")]
    Escapes(String),
    /// The systemd driver needs a slice.
    #[error("cgroup parent {0:?} is not the name of a systemd slice (the driver is systemd)")]
    NotASlice(String),
    /// A container's group needs one plain name.
    #[error("{0:?} can't be the name of a cgroup")]
    BadName(String),
}

/// Under cgroupfs: the parent's path as it is.
pub(crate) fn plain_parent(parent: &str) -> Result<Place, NameError> {
    Ok(Place {
        path: relative(parent)?,
        unit: None,
    })
}

/// Under systemd: the kubelet sends the slice's name; a whole path of slices is taken as well.
/// Empty is `system.slice`, where systemd itself puts what has no other place.
pub(crate) fn slice_parent(parent: &str) -> Result<Place, NameError> {
    relative(parent)?;
    let trimmed = parent.trim_end_matches('/');
    if trimmed.is_empty() {
        return slice_parent("system.slice");
    }
    let unit = trimmed.rsplit('/').next().unwrap_or(trimmed);
    Ok(Place {
        path: expand_slice(unit).ok_or_else(|| NameError::NotASlice(parent.to_owned()))?,
        unit: Some(unit.to_owned()),
    })
}

/// A container's group beneath its parent.
pub(crate) fn child(parent: &Place, name: &str) -> Result<Place, NameError> {
    let plain = !name.is_empty() && name != "." && name != "..";
    if !plain || name.contains(['/', '\0']) {
        return Err(NameError::BadName(name.to_owned()));
    }
    Ok(match parent.unit {
        None => Place {
            path: parent.path.join(name),
            unit: None,
        },
        Some(_) => {
            let unit = if name.ends_with(".scope") {
                name.to_owned()
            } else {
                format!("joey-{name}.scope")
            };
            Place {
                path: parent.path.join(&unit),
                unit: Some(unit),
            }
        }
    })
}

fn relative(path: &str) -> Result<PathBuf, NameError> {
    let escapes = || NameError::Escapes(path.to_owned());
    if path.contains('\0') {
        return Err(escapes());
    }
    let mut out = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => out.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(escapes()),
        }
    }
    Ok(out)
}

/// `a-b-c.slice` lies in `a.slice/a-b.slice/a-b-c.slice` (systemd.slice(5)); `-.slice` is the root.
fn expand_slice(unit: &str) -> Option<PathBuf> {
    let stem = unit.strip_suffix(".slice")?;
    if stem == "-" {
        return Some(PathBuf::new());
    }
    if stem.is_empty() || stem.split('-').any(str::is_empty) {
        return None;
    }
    let ends = stem
        .match_indices('-')
        .map(|(at, _)| at)
        .chain([stem.len()]);
    Some(ends.map(|end| format!("{}.slice", &stem[..end])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_expanded_to_their_place() {
        let place = slice_parent("kubepods-burstable-pod1_2.slice").unwrap();
        assert_eq!(
            place.path,
            Path::new("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice")
        );
        assert_eq!(
            place.unit.as_deref(),
            Some("kubepods-burstable-pod1_2.slice")
        );
        assert_eq!(
            slice_parent("/kubepods.slice/kubepods-pod1.slice")
                .unwrap()
                .path,
            Path::new("kubepods.slice/kubepods-pod1.slice")
        );
        assert_eq!(slice_parent("-.slice").unwrap().path, Path::new(""));
        assert_eq!(slice_parent("").unwrap().path, Path::new("system.slice"));
    }

    #[test]
    fn what_is_no_slice_is_refused_with_its_name() {
        for parent in ["/kubepods/pod1", "a--b.slice", ".slice", "-a.slice"] {
            assert_eq!(
                slice_parent(parent),
                Err(NameError::NotASlice(parent.to_owned()))
            );
        }
    }

    #[test]
    fn paths_stay_beneath_the_root() {
        assert_eq!(
            plain_parent("/kubepods//pod1/").unwrap().path,
            Path::new("kubepods/pod1")
        );
        assert_eq!(
            plain_parent("/a/../../b"),
            Err(NameError::Escapes("/a/../../b".to_owned()))
        );
        let parent = plain_parent("/p").unwrap();
        for name in ["", ".", "..", "a/b", "a\0"] {
            assert_eq!(
                child(&parent, name),
                Err(NameError::BadName(name.to_owned()))
            );
        }
    }

    #[test]
    fn a_container_under_systemd_is_a_scope() {
        let parent = slice_parent("kubepods-pod1.slice").unwrap();
        let place = child(&parent, "abc").unwrap();
        assert_eq!(place.unit.as_deref(), Some("joey-abc.scope"));
        assert!(place.path.ends_with("kubepods-pod1.slice/joey-abc.scope"));
    }
}
