//! What this host has, and how groups are made in it.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::apply::{Old, UpdateError};
use crate::files::{self, FileError};
use crate::group::Group;
use crate::keeper::Keeper;
use crate::layout::{Layout, Version};
use crate::path::{self, NameError, Place};
use crate::remove;
use crate::resources::Resources;
use crate::systemd::{self, SystemdError};
use crate::units;

/// Who makes groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// We do, as folders.
    Cgroupfs,
    /// systemd does, as slices and scopes.
    Systemd,
}

/// What the configuration asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriverChoice {
    /// systemd where it runs the host, else cgroupfs.
    #[default]
    Auto,
    /// [`Driver::Cgroupfs`].
    Cgroupfs,
    /// [`Driver::Systemd`].
    Systemd,
}

/// Why cgroups can't be used here.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// No list of mounts.
    #[error("read /proc/self/mountinfo")]
    Mountinfo(#[source] io::Error),
    /// Nothing is mounted.
    #[error("no cgroup hierarchy is mounted")]
    NotMounted,
    /// The systemd driver is asked for.
    #[error("the systemd cgroup driver is asked for, but systemd does not run this host")]
    NoSystemd,
}

/// Why a group could not be made. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Its parent or name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A folder or file.
    #[error(transparent)]
    File(#[from] FileError),
    /// There are processes in a group of this name.
    #[error("cgroup {0} is in use already")]
    InUse(String),
    /// Its limits.
    #[error("limit the new cgroup")]
    Limits(#[source] UpdateError),
    /// Its unit.
    #[error("start unit {unit:?}")]
    Systemd {
        /// The scope or slice.
        unit: String,
        /// Why.
        #[source]
        source: SystemdError,
    },
    /// The process that holds a new scope open.
    #[error("start the process that holds a new scope open")]
    Keeper(#[source] io::Error),
    /// The worker was lost: the process is ending.
    #[error("the worker that makes cgroups is gone")]
    Worker,
}

/// The host's cgroups, as found at the start.
#[derive(Debug, Clone)]
pub struct Cgroups {
    layout: Layout,
    driver: Driver,
}

impl Cgroups {
    /// Reads which hierarchies are mounted and settles the driver.
    ///
    /// # Errors
    /// When none is mounted, or systemd is asked for where it does not run.
    pub fn detect(choice: DriverChoice) -> Result<Self, DetectError> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(DetectError::Mountinfo)?;
        let layout = Layout::parse(&mounts).ok_or(DetectError::NotMounted)?;
        // What sd_booted(3) tests.
        let booted = Path::new("/run/systemd/system").is_dir();
        let driver = match (choice, booted) {
            (DriverChoice::Systemd, false) => return Err(DetectError::NoSystemd),
            (DriverChoice::Auto | DriverChoice::Systemd, true) => Driver::Systemd,
            (DriverChoice::Auto, false) | (DriverChoice::Cgroupfs, _) => Driver::Cgroupfs,
        };
        Ok(Self { layout, driver })
    }

    /// The kind of set-up.
    #[must_use]
    pub fn version(&self) -> Version {
        self.layout.version()
    }

    /// The driver in use.
    #[must_use]
    pub fn driver(&self) -> Driver {
        self.driver
    }

    /// The controllers that limits can be set with, sorted.
    #[must_use]
    pub fn controllers(&self) -> Vec<String> {
        let mut all: Vec<String> = match (self.version(), self.layout.unified()) {
            (Version::V2, Some(root)) => files::read(&root.join("cgroup.controllers"))
                .unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
            _ => {
                let hierarchies = self.layout.v1().iter();
                let names = hierarchies.flat_map(|h| h.controllers.iter());
                names.filter(|c| !c.contains('=')).cloned().collect()
            }
        };
        all.sort();
        all
    }

    /// What of these limits [`Cgroups::create`] and [`Group::update`] leave out without an error:
    /// huge page limits on v1 without their controller. For a warning.
    #[must_use]
    pub fn left_out(&self, wanted: &Resources) -> Vec<String> {
        if self.version() == Version::V2 || self.layout.v1_root("hugetlb").is_some() {
            return Vec::new();
        }
        let limits = wanted.hugepage_limits.iter();
        limits.map(|(size, _)| format!("hugetlb.{size}")).collect()
    }

    /// Makes a container's group with its limits. `parent` is what the kubelet sends: a path with
    /// cgroupfs, a slice's name with systemd. Missing parents are made.
    ///
    /// # Errors
    /// Whatever was made is removed again.
    pub async fn create(
        &self,
        parent: &str,
        name: &str,
        resources: &Resources,
    ) -> Result<Group, CreateError> {
        let parent = self.parent_place(parent)?;
        let place = path::child(&parent, name)?;
        let mut new = Unclaimed(Some(Group::new(&self.layout, place)));
        let mut group = new.group();
        if let (Some(unit), Some(slice)) = (&group.unit, &parent.unit) {
            let keeper = Keeper::start().map_err(CreateError::Keeper)?;
            group.keeper = Some(keeper);
            new.0 = Some(group.clone());
            let properties = units::properties(resources, self.version());
            let started = systemd::start_scope(unit, slice, keeper.pid(), properties).await;
            started.map_err(|source| CreateError::Systemd {
                unit: unit.clone(),
                source,
            })?;
        }
        let resources = resources.clone();
        // The guard travels with the work: it still removes the group when nobody waits any more.
        let worker = tokio::task::spawn_blocking(move || {
            make_dirs(&group)?;
            group
                .apply(&resources, Old::Ignore)
                .map_err(CreateError::Limits)?;
            Ok::<Unclaimed, CreateError>(new)
        });
        let mut new = worker.await.map_err(|_| CreateError::Worker)??;
        Ok(new.claim())
    }

    /// Makes a pod's own group, limits and all; fine if it is there.
    ///
    /// # Errors
    /// A parent of the wrong kind, or limits that can't be set.
    pub async fn create_parent(
        &self,
        parent: &str,
        resources: &Resources,
    ) -> Result<Group, CreateError> {
        let group = Group::new(&self.layout, self.parent_place(parent)?);
        let held = group.room(resources).await.map_err(CreateError::Limits)?;
        if let Some(unit) = &group.unit {
            let properties = units::properties(resources, self.version());
            let started = systemd::start_slice(unit, properties).await;
            started.map_err(|source| CreateError::Systemd {
                unit: unit.clone(),
                source,
            })?;
        }
        let (made, resources) = (group.clone(), resources.clone());
        let worker = tokio::task::spawn_blocking(move || {
            make_parents(&made, &made.path)?;
            made.apply(&resources, Old::Keep)
                .map_err(CreateError::Limits)
        });
        worker.await.map_err(|_| CreateError::Worker)??;
        drop(held);
        Ok(group)
    }

    /// A handle to a container's group, made or not. A name that [`Cgroups::create`] would refuse
    /// gives a handle to a group that does not exist.
    #[must_use]
    pub fn open(&self, parent: &str, name: &str) -> Group {
        let place = self
            .parent_place(parent)
            .and_then(|parent| path::child(&parent, name));
        Group::new(&self.layout, place.unwrap_or_else(|_| nowhere()))
    }

    /// A handle to a pod's own group.
    #[must_use]
    pub fn parent_group(&self, parent: &str) -> Group {
        let place = self.parent_place(parent);
        Group::new(&self.layout, place.unwrap_or_else(|_| nowhere()))
    }

    /// Whether `parent` can be a pod's cgroup parent with this driver.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn check_parent(&self, parent: &str) -> Result<(), NameError> {
        self.parent_place(parent).map(drop)
    }

    fn parent_place(&self, parent: &str) -> Result<Place, NameError> {
        match self.driver {
            Driver::Cgroupfs => path::plain_parent(parent),
            Driver::Systemd => path::slice_parent(parent),
        }
    }
}

/// Never a group: the kernel takes no newline in a group's name.
fn nowhere() -> Place {
    Place {
        path: "\n".into(),
        unit: None,
    }
}

/// A group that nobody has got yet: removed when dropped, so that neither an error nor a caller that
/// went away leaves one behind.
struct Unclaimed(Option<Group>);

impl Unclaimed {
    fn group(&self) -> Group {
        self.0
            .clone()
            .unwrap_or_else(|| unreachable!("claimed only at the end"))
    }

    fn claim(&mut self) -> Group {
        let group = self.group();
        self.0 = None;
        group
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(group) = self.0.take() {
            group.release();
            // An empty scope ends by itself; its folders in hierarchies systemd leaves alone do not.
            if let Err(error) = remove::remove_now(&group) {
                tracing::warn!(%error, "a partly made cgroup could not be removed");
            }
        }
    }
}

/// The group's folder in every hierarchy, parents as needed.
fn make_dirs(group: &Group) -> Result<(), CreateError> {
    let by_systemd = group.unit.is_some();
    for root in group.layout.roots() {
        let dir = root.join(&group.path);
        let mut made = joey_failpoint::hit("cgroup.create").and_then(|()| fs::create_dir(&dir));
        if made
            .as_ref()
            .is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
        {
            make_parents_in(group, root, above(&group.path))?;
            made = fs::create_dir(&dir);
        }
        match made {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let used = || files::read(&dir.join("cgroup.procs")).is_ok_and(|p| !p.is_empty());
                if !by_systemd && used() {
                    return Err(CreateError::InUse(dir.display().to_string()));
                }
            }
            Err(e) => return Err(FileError::new("make", &dir, e).into()),
        }
    }
    if group.layout.version() == Version::V2
        && let Some(root) = group.layout.unified()
    {
        // systemd knows fewer controllers than the kernel (no huge pages).
        enable_controllers(root, above(&group.path))?;
    }
    if let Some(root) = group.layout.v1_root("cpuset") {
        inherit_cpuset(root, &group.path)?;
    }
    Ok(())
}

/// The parent; the root's is the root.
fn above(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new(""))
}

fn make_parents(group: &Group, path: &Path) -> Result<(), CreateError> {
    for root in group.layout.roots() {
        make_parents_in(group, root, path)?;
    }
    Ok(())
}

fn make_parents_in(group: &Group, root: &Path, path: &Path) -> Result<(), CreateError> {
    let dir = root.join(path);
    joey_failpoint::hit("cgroup.create")
        .and_then(|()| fs::create_dir_all(&dir))
        .map_err(|e| FileError::new("make", &dir, e))?;
    if group.layout.v1_root("cpuset") == Some(root) {
        inherit_cpuset(root, path)?;
    }
    if group.layout.version() == Version::V2 && group.unit.is_none() {
        enable_controllers(root, above(path))?;
    }
    Ok(())
}

/// A v1 cpuset takes no process before it has processors and memory nodes, from the root down.
fn inherit_cpuset(root: &Path, path: &Path) -> Result<(), CreateError> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        inherit_list(root, path, name)?;
    }
    Ok(())
}

fn inherit_list(root: &Path, path: &Path, name: &str) -> Result<String, FileError> {
    let file = root.join(path).join(name);
    let own = files::read(&file).map_err(|e| FileError::new("read", &file, e))?;
    let Some(parent) = path.parent().filter(|_| own.is_empty()) else {
        return Ok(own);
    };
    let inherited = inherit_list(root, parent, name)?;
    files::write(&file, &inherited)
        .map_err(|e| FileError::new(format!("write {inherited:?} to"), &file, e))?;
    Ok(inherited)
}

/// Hands every controller that the root has down to the children of `path`. One that can't be had
/// shows up when a limit needs it, with its name.
fn enable_controllers(root: &Path, path: &Path) -> Result<(), CreateError> {
    let read = |file: &Path| files::read(file).map_err(|e| FileError::new("read", file, e));
    let last = root.join(path).join("cgroup.subtree_control");
    let wanted = read(&root.join("cgroup.controllers"))?;
    let enabled = read(&last)?;
    if wanted
        .split(' ')
        .all(|c| enabled.split(' ').any(|e| e == c))
    {
        return Ok(());
    }
    let mut dirs: Vec<&Path> = path.ancestors().collect();
    dirs.reverse();
    for dir in dirs {
        let file = root.join(dir).join("cgroup.subtree_control");
        let enabled = read(&file)?;
        let missing: Vec<String> = wanted
            .split_whitespace()
            .filter(|c| !enabled.split(' ').any(|e| e == *c))
            .map(|c| format!("+{c}"))
            .collect();
        if missing.is_empty() || files::write(&file, &missing.join(" ")).is_ok() {
            continue;
        }
        for one in &missing {
            if let Err(error) = files::write(&file, one) {
                tracing::debug!(file = %file.display(), one, %error, "controller not enabled");
            }
        }
    }
    Ok(())
}
