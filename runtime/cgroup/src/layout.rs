//! Which cgroup hierarchies are mounted, and where.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The kinds of set-up a host can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Version {
    /// v1 hierarchies only.
    V1,
    /// v1 hierarchies with the controllers, and a v2 tree without any.
    Hybrid,
    /// The v2 tree only.
    V2,
}

/// One mounted v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hierarchy {
    /// `cpu`, `memory`, …; `name=systemd` for a named one.
    pub(crate) controllers: Vec<String>,
    /// Where its root is mounted.
    pub(crate) root: PathBuf,
}

/// The mounted hierarchies. Cheap to clone; a record of a group carries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Mounts", into = "Mounts")]
pub(crate) struct Layout(Arc<Mounts>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mounts {
    v1: Vec<Hierarchy>,
    unified: Option<PathBuf>,
}

impl From<Mounts> for Layout {
    fn from(mounts: Mounts) -> Self {
        Self(Arc::new(mounts))
    }
}

impl From<Layout> for Mounts {
    fn from(layout: Layout) -> Self {
        Arc::unwrap_or_clone(layout.0)
    }
}

impl Layout {
    /// From the text of `/proc/self/mountinfo`. A hierarchy mounted twice counts once, and only
    /// mounts of a hierarchy's root count: elsewhere a pod would land under a group that is not its
    /// parent. `None` when no hierarchy is mounted.
    pub(crate) fn parse(mountinfo: &str) -> Option<Self> {
        let mut v1: Vec<Hierarchy> = Vec::new();
        let mut unified = None;
        for mount in mountinfo.lines().filter_map(Mount::parse) {
            if mount.root != "/" {
                continue;
            }
            match mount.fs_type {
                "cgroup" => {
                    let controllers = mount.controllers();
                    let known = v1.iter().any(|h| h.controllers == controllers);
                    if !controllers.is_empty() && !known {
                        v1.push(Hierarchy {
                            controllers,
                            root: mount.target,
                        });
                    }
                }
                "cgroup2" => {
                    unified.get_or_insert(mount.target);
                }
                _ => {}
            }
        }
        if v1.is_empty() && unified.is_none() {
            return None;
        }
        Some(Mounts { v1, unified }.into())
    }

    /// A layout of one v2 tree, wherever it is.
    #[cfg(test)]
    pub(crate) fn v2_at(root: &Path) -> Self {
        Mounts {
            v1: Vec::new(),
            unified: Some(root.to_owned()),
        }
        .into()
    }

    pub(crate) fn version(&self) -> Version {
        match (self.0.v1.is_empty(), &self.0.unified) {
            (true, _) => Version::V2,
            (false, None) => Version::V1,
            (false, Some(_)) => Version::Hybrid,
        }
    }

    pub(crate) fn v1(&self) -> &[Hierarchy] {
        &self.0.v1
    }

    pub(crate) fn unified(&self) -> Option<&Path> {
        self.0.unified.as_deref()
    }

    /// The root of the v1 hierarchy that has this controller.
    pub(crate) fn v1_root(&self, controller: &str) -> Option<&Path> {
        self.0
            .v1
            .iter()
            .find(|h| h.controllers.iter().any(|c| c == controller))
            .map(|h| h.root.as_path())
    }

    /// The roots of all hierarchies: v1 ones in mount order, then the v2 tree.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &Path> {
        self.0
            .v1
            .iter()
            .map(|h| h.root.as_path())
            .chain(self.unified())
    }
}

/// The fields of a line of mountinfo that matter here (proc_pid_mountinfo(5)).
struct Mount<'a> {
    root: &'a str,
    target: PathBuf,
    fs_type: &'a str,
    super_options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, target) = (fields.next()?, fields.next()?);
        let mut fields = after.split(' ');
        let fs_type = fields.next()?;
        let super_options = fields.nth(1)?;
        Some(Self {
            root,
            target: unescape(target),
            fs_type,
            super_options,
        })
    }

    fn controllers(&self) -> Vec<String> {
        const NOT_CONTROLLERS: [&str; 7] = [
            "rw",
            "ro",
            "xattr",
            "clone_children",
            "noprefix",
            "cpuset_v2_mode",
            "favordynmods",
        ];
        self.super_options
            .split(',')
            .filter(|o| !NOT_CONTROLLERS.contains(o) && !o.starts_with("release_agent="))
            .map(str::to_owned)
            .collect()
    }
}

/// mountinfo writes blanks, tabs, newlines and backslashes as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest
            .get(at + 1..at + 4)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(code) = code {
            out.push(char::from(code));
            rest = &rest[at + 4..];
        } else {
            out.push('\\');
            rest = &rest[at + 1..];
        }
    }
    out.push_str(rest);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:32 /pods /var/lib/x/memory rw,relatime - cgroup cgroup rw,memory
37 31 0:32 / /second\\040place rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";

    #[test]
    fn hybrid_mounts_are_found_once_and_at_their_roots() {
        let layout = Layout::parse(HYBRID).unwrap();
        assert_eq!(layout.version(), Version::Hybrid);
        assert_eq!(layout.v1().len(), 3);
        assert_eq!(
            layout.v1_root("cpuacct"),
            Some(Path::new("/sys/fs/cgroup/cpu,cpuacct"))
        );
        assert_eq!(
            layout.v1_root("memory"),
            Some(Path::new("/sys/fs/cgroup/memory"))
        );
        assert_eq!(
            layout.v1_root("name=systemd"),
            Some(Path::new("/sys/fs/cgroup/systemd"))
        );
        assert_eq!(layout.v1_root("hugetlb"), None);
        assert_eq!(layout.roots().count(), 4);
    }

    #[test]
    fn v2_alone_and_nothing_at_all() {
        let line =
            "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot";
        assert_eq!(Layout::parse(line).unwrap().version(), Version::V2);
        assert!(Layout::parse("22 1 8:1 / / rw - ext4 /dev/vda rw").is_none());
        assert!(Layout::parse("garbage").is_none());
    }

    #[test]
    fn octal_escapes_are_undone() {
        assert_eq!(unescape("/a\\040b\\134c"), Path::new("/a b\\c"));
        assert_eq!(unescape("/a\\"), Path::new("/a\\"));
    }

    #[test]
    fn a_layout_survives_being_written_down() {
        let layout = Layout::parse(HYBRID).unwrap();
        let mounts: Mounts = layout.clone().into();
        assert_eq!(Layout::from(mounts), layout);
    }
}
