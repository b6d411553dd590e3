//! A group: the handle that a record keeps.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::apply::{self, Old, UpdateError};
use crate::devices;
use crate::keeper::Keeper;
use crate::layout::{Layout, Version};
use crate::path::Place;
use crate::plan::{PlanError, Write};
use crate::resources::Resources;
use crate::shrink::{self, Held};
use crate::{systemd, units, v1, v2};

/// A handle to one group in every hierarchy. Making or dropping a handle touches nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub(crate) layout: Layout,
    /// Beneath every hierarchy's root.
    pub(crate) path: PathBuf,
    /// With the systemd driver.
    pub(crate) unit: Option<String>,
    /// Holds a new scope open; see [`Group::release`].
    #[serde(default)]
    pub(crate) keeper: Option<Keeper>,
}

/// What [`Group::restore`] found and did.
#[derive(Debug, Default)]
pub struct Restored {
    /// The settings that were not as wanted and are now.
    pub changed: Vec<String>,
    /// The first that the kernel does not take back.
    pub refused: Option<UpdateError>,
}

impl Group {
    pub(crate) fn new(layout: &Layout, place: Place) -> Self {
        Self {
            layout: layout.clone(),
            path: place.path,
            unit: place.unit,
            keeper: None,
        }
    }

    /// What a process must enter: the group's folder in each v1 hierarchy (named ones too) and in
    /// the v2 tree; the one folder on v2.
    #[must_use]
    pub fn dirs(&self) -> Vec<PathBuf> {
        let beneath = |root: &Path| root.join(&self.path);
        self.layout.roots().map(beneath).collect()
    }

    /// Where the group lies beneath a hierarchy's root: `/kubepods/pod1/abc`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/").join(&self.path)
    }

    /// The systemd unit, with that driver.
    #[must_use]
    pub fn unit(&self) -> Option<&str> {
        self.unit.as_deref()
    }

    /// The file with an `oom_kill` line: `memory.oom_control` of v1, `memory.events` of v2.
    #[must_use]
    pub fn oom_file(&self) -> PathBuf {
        match self.v1_dir("memory") {
            Some(dir) => dir.join("memory.oom_control"),
            None => self.unified_dir().unwrap_or_default().join("memory.events"),
        }
    }

    /// Whether the group is there.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.main_dir().is_some_and(|dir| dir.exists())
    }

    /// Brings new limits into force: all of them, or on an error none. Those not given stay.
    ///
    /// # Errors
    /// A limit without its controller, or one the kernel or systemd refuses, by name.
    pub async fn update(&self, wanted: &Resources) -> Result<(), UpdateError> {
        let before = match &self.unit {
            Some(_) => Some(self.blocking(|g| g.read_back()).await?),
            None => None,
        };
        // systemd writes a memory limit at once.
        let held = self.room(wanted).await?;
        if let Some(unit) = &self.unit {
            self.set_properties(unit, wanted).await?;
        }
        let target = wanted.clone();
        let result = self.blocking(move |g| g.apply(&target, Old::Keep)).await;
        drop(held);
        let error = match result {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) | Err(error) => error,
        };
        if let (Some(unit), Some(before)) = (&self.unit, before) {
            let old = before.limited_to(wanted);
            if let Err(undo) = self.set_properties(unit, &old).await {
                tracing::warn!(unit, error = %undo, "old unit properties could not be restored");
            }
        }
        Err(error)
    }

    /// Makes limits right again that somebody else changed. What the kernel refuses keeps no other
    /// from being restored.
    ///
    /// # Errors
    /// Limits that this host can't have, or systemd refuses.
    pub async fn restore(&self, wanted: &Resources) -> Result<Restored, UpdateError> {
        let target = wanted.clone();
        let restored = self.blocking(move |g| g.force(&target)).await??;
        if let Some(unit) = self.unit.as_ref().filter(|_| !restored.changed.is_empty()) {
            self.set_properties(unit, wanted).await?;
        }
        Ok(restored)
    }

    fn force(&self, wanted: &Resources) -> Result<Restored, UpdateError> {
        if !self.exists() {
            return Ok(Restored::default());
        }
        if let Some((dir, limit)) = self.v2_memory_limit(wanted)
            && !wanted.unified.contains_key("memory.high")
        {
            shrink::release(&dir, limit);
        }
        let _held = match self.make_room(wanted) {
            Ok(held) => held,
            Err(refused) => {
                let others = Resources {
                    memory_limit: None,
                    memory_swap: None,
                    ..wanted.clone()
                };
                let (changed, _) = apply::force(self.plan(&others)?);
                let refused = Some(refused);
                return Ok(Restored { changed, refused });
            }
        };
        let (mut changed, mut refused) = apply::force(self.plan(wanted)?);
        if let Some(rules) = &wanted.devices {
            match devices::restore(&self.layout, &self.path, rules) {
                Ok(true) => changed.push("devices".to_owned()),
                Ok(false) => {}
                Err(error) => {
                    refused.get_or_insert(UpdateError::Devices(error));
                }
            }
        }
        Ok(Restored { changed, refused })
    }

    /// Whether this host can have such limits at all; the kernel may still refuse a value.
    ///
    /// # Errors
    /// Names the limit and what it lacks.
    pub fn check(&self, wanted: &Resources) -> Result<(), PlanError> {
        self.plan(wanted).map(drop)
    }

    async fn set_properties(&self, unit: &str, wanted: &Resources) -> Result<(), UpdateError> {
        let properties = units::properties(wanted, self.layout.version());
        systemd::set_properties(unit, properties)
            .await
            .map_err(|source| UpdateError::Systemd {
                unit: unit.to_owned(),
                source,
            })
    }

    /// Files and device rules, in the calling thread. Shrinking memory may take long.
    pub(crate) fn apply(&self, wanted: &Resources, old: Old) -> Result<(), UpdateError> {
        let _held = match old {
            Old::Keep => self.make_room(wanted)?,
            Old::Ignore => Held::default(),
        };
        let undo = apply::apply(self.plan(wanted)?, old)?;
        if let Some(rules) = &wanted.devices
            && let Err(error) = devices::apply(&self.layout, &self.path, rules)
        {
            undo.roll_back();
            return Err(UpdateError::Devices(error));
        }
        Ok(())
    }

    /// [`Group::make_room`] where systemd is told the limits before the files are written.
    pub(crate) async fn room(&self, wanted: &Resources) -> Result<Held, UpdateError> {
        if self.unit.is_none() {
            return Ok(Held::default());
        }
        let wanted = wanted.clone();
        self.blocking(move |g| g.make_room(&wanted)).await?
    }

    /// Before a v2 memory limit that may be lower than what is used.
    fn make_room(&self, wanted: &Resources) -> Result<Held, UpdateError> {
        match self.v2_memory_limit(wanted) {
            Some((dir, limit)) => shrink::make_room(&dir, limit),
            None => Ok(Held::default()),
        }
    }

    fn v2_memory_limit(&self, wanted: &Resources) -> Option<(PathBuf, u64)> {
        let unified = wanted.unified.get("memory.max");
        let limit = unified.map_or_else(
            || {
                wanted
                    .memory_limit
                    .and_then(|limit| u64::try_from(limit).ok())
            },
            |limit| limit.trim().parse().ok(),
        );
        match (self.layout.version(), self.unified_dir(), limit) {
            (Version::V2, Some(dir), Some(limit @ 1..)) => Some((dir, limit)),
            _ => None,
        }
    }

    fn plan(&self, wanted: &Resources) -> Result<Vec<Write>, PlanError> {
        if let (Some(memory @ 1..), Some(total @ 1..)) = (wanted.memory_limit, wanted.memory_swap)
            && total < memory
        {
            return Err(PlanError::SwapBelowMemory { total, memory });
        }
        match (self.layout.version(), self.unified_dir()) {
            (Version::V2, Some(dir)) => v2::plan(&dir, wanted),
            _ => v1::plan(&self.layout, &self.path, wanted),
        }
    }

    /// Lets a new scope live on its own processes. With the systemd driver a scope ends with its
    /// last process and can't begin without one, so [`crate::Cgroups::create`] puts a sleeping
    /// process in; call this once the container's own is inside. Does nothing with cgroupfs, and
    /// when called again.
    pub fn release(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.end();
        }
    }

    pub(crate) fn v1_dir(&self, controller: &str) -> Option<PathBuf> {
        let root = self.layout.v1_root(controller)?;
        Some(root.join(&self.path))
    }

    pub(crate) fn unified_dir(&self) -> Option<PathBuf> {
        let root = self.layout.unified()?;
        Some(root.join(&self.path))
    }

    /// The folder whose processes count: v2's, else that of a hierarchy every process enters.
    pub(crate) fn main_dir(&self) -> Option<PathBuf> {
        if self.layout.version() == Version::V2 {
            return self.unified_dir();
        }
        ["pids", "memory", "freezer", "devices"]
            .into_iter()
            .find_map(|controller| self.v1_dir(controller))
            .or_else(|| self.dirs().into_iter().next())
    }

    /// Runs file work off the async threads: any write into a cgroup may wait for the kernel.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, UpdateError> {
        let group = self.clone();
        tokio::task::spawn_blocking(move || work(&group))
            .await
            .map_err(|_| UpdateError::Worker)
    }
}
