//! Brings writes into force, all or none.

use std::collections::VecDeque;
use std::io;

use crate::files::{self, FileError};
use crate::plan::{PlanError, Restore, Write};
use crate::same;
use crate::systemd::SystemdError;

/// Limits could not be brought into force. What was in force before still is.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// This host can't have such limits.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The kernel refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// Device rules.
    #[error("put device rules into force")]
    Devices(#[source] FileError),
    /// systemd refused.
    #[error("set properties of unit {unit:?}")]
    Systemd {
        /// The unit.
        unit: String,
        /// Why.
        #[source]
        source: SystemdError,
    },
    /// A lower memory limit would kill.
    #[error("{usage} bytes of memory are in use and can't be reclaimed below a limit of {limit}")]
    MemoryInUse {
        /// Bytes.
        usage: u64,
        /// Bytes.
        limit: u64,
    },
    /// The worker was lost: the process is ending.
    #[error("the worker that writes cgroup files is gone")]
    Worker,
}

/// The old contents of what was written; [`Undo::roll_back`] brings them back.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Undo(Vec<Write>);

impl Undo {
    /// Best effort: every old value is tried, in reverse order and again when it depends on another.
    pub(crate) fn roll_back(self) {
        let mut pending: VecDeque<Write> = self.0.into_iter().rev().collect();
        let mut refused = 0;
        while let Some(write) = pending.pop_front() {
            match files::write(&write.path, &write.value) {
                Ok(()) => refused = 0,
                Err(error) if depends_on_another(&error) && refused < pending.len() => {
                    refused += 1;
                    pending.push_back(write);
                }
                Err(error) => {
                    tracing::warn!(path = %write.path.display(), value = write.value, %error,
                        "an old cgroup limit could not be restored");
                }
            }
        }
    }
}

/// Whether old values are read before each write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Old {
    /// To be restored on a failure.
    Keep,
    /// The group is new, and removed on a failure.
    Ignore,
}

/// Writes all, or restores all. A value that the kernel finds inconsistent with another (memory
/// above memory and swap, a burst above the quota) is tried again once others are in force, so that
/// no order of any group's values has to be known here.
pub(crate) fn apply(writes: Vec<Write>, old_values: Old) -> Result<Undo, UpdateError> {
    let mut undo = Undo::default();
    let mut pending: VecDeque<Write> = writes.into();
    let mut refused = 0;
    while let Some(write) = pending.pop_front() {
        let old = match old_values {
            Old::Keep if same::is_in_force(&write) => continue,
            Old::Keep => old_value(&write),
            Old::Ignore => None,
        };
        match files::write(&write.path, &write.value) {
            Ok(()) => {
                refused = 0;
                undo.0.extend(old);
            }
            Err(error) if write.optional && files::is_gone(&error) => {}
            Err(error) if depends_on_another(&error) && refused < pending.len() => {
                refused += 1;
                pending.push_back(write);
            }
            Err(error) => {
                undo.roll_back();
                return Err(explain(&write, error));
            }
        }
    }
    Ok(undo)
}

/// Writes what is not in force, as far as the kernel takes it: the names of the files whose content
/// changed, and the first refusal.
pub(crate) fn force(writes: Vec<Write>) -> (Vec<String>, Option<UpdateError>) {
    let (mut changed, mut failed) = (Vec::new(), None);
    let mut refused = 0;
    let mut pending: VecDeque<Write> = writes.into();
    while let Some(write) = pending.pop_front() {
        if same::is_in_force(&write) {
            continue;
        }
        let before = files::read(&write.path).ok();
        match files::write(&write.path, &write.value) {
            Ok(()) => {
                refused = 0;
                // Some values come back in other words each time.
                if files::read(&write.path).ok() != before {
                    changed.push(write.setting());
                }
            }
            Err(error) if write.optional && files::is_gone(&error) => {}
            Err(error) if depends_on_another(&error) && refused < pending.len() => {
                refused += 1;
                pending.push_back(write);
            }
            Err(error) => {
                failed.get_or_insert_with(|| explain(&write, error));
            }
        }
    }
    (changed, failed)
}

fn depends_on_another(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINVAL)
}

/// A write that brings back what is there now; none where that can't be read.
fn old_value(write: &Write) -> Option<Write> {
    let content = files::read(&write.path).ok()?;
    let value = match &write.restore {
        Restore::Content => content,
        Restore::Line { key, default } => content
            .lines()
            .find(|line| line.split(' ').next() == Some(key))
            .unwrap_or(default)
            .to_owned(),
    };
    Some(Write {
        value,
        ..write.clone()
    })
}

/// A missing file in an existing group means a missing controller.
fn explain(write: &Write, source: io::Error) -> UpdateError {
    let group = write.path.parent();
    let group_exists = group.is_some_and(std::path::Path::exists);
    if source.kind() == io::ErrorKind::NotFound && group_exists {
        let setting = write.setting();
        let file_of_controller = |entry: io::Result<std::fs::DirEntry>| {
            entry.is_ok_and(|e| {
                let name = e.file_name();
                let name = name.to_string_lossy();
                name.starts_with(&format!("{}.", write.controller))
                    && !name.ends_with(".pressure")
                    && !name.starts_with("cpu.stat")
            })
        };
        let present = group
            .and_then(|g| std::fs::read_dir(g).ok())
            .is_some_and(|mut entries| entries.any(file_of_controller));
        return if present {
            PlanError::MissingFile { setting }.into()
        } else {
            let controller = write.controller.clone();
            PlanError::MissingController {
                controller,
                setting,
            }
            .into()
        };
    }
    FileError::new(format!("write {:?} to", write.value), &write.path, source).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_failure_brings_back_every_old_value() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("cpu.weight"), "100").unwrap();
        fs::write(path("io.max"), "8:0 rbps=10\n8:16 rbps=7").unwrap();
        let writes = vec![
            Write::new("cpu", path("cpu.weight"), "55"),
            Write::new("io", path("io.max"), "8:16 rbps=9").line("8:16".into(), String::new()),
            Write::new("memory", path("memory.max"), "1"),
        ];
        let error = apply(writes, Old::Keep).unwrap_err();
        assert_eq!(
            error.to_string(),
            "memory.max can't be set: this host's cgroup \"memory\" controller is missing"
        );
        // Plain files keep what a shorter write leaves behind it, unlike the kernel's.
        assert!(
            fs::read_to_string(path("cpu.weight"))
                .unwrap()
                .starts_with("100")
        );
        assert!(
            fs::read_to_string(path("io.max"))
                .unwrap()
                .starts_with("8:16 rbps=7")
        );
    }

    #[test]
    fn a_missing_file_of_a_present_controller_is_named_as_such() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("memory.max"), "").unwrap();
        let write = Write::new("memory", dir.path().join("memory.zswap.max"), "1");
        let error = apply(vec![write], Old::Keep).unwrap_err();
        assert!(matches!(
            error,
            UpdateError::Plan(PlanError::MissingFile { setting }) if setting == "memory.zswap.max"
        ));
    }

    #[test]
    fn what_is_refused_keeps_nothing_else_from_being_forced() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("pids.max"), "9").unwrap();
        fs::write(path("cpu.weight"), "55").unwrap();
        let writes = vec![
            Write::new("memory", path("memory.max"), "1"),
            Write::new("cpu", path("cpu.weight"), "55"),
            Write::new("pids", path("pids.max"), "7"),
        ];
        let (changed, failed) = force(writes);
        assert_eq!(changed, ["pids.max"]);
        assert!(failed.unwrap().to_string().contains("memory.max"));
    }

    #[test]
    fn optional_files_may_be_missing() {
        let dir = tempfile::tempdir().unwrap();
        let write = Write::new("memory", dir.path().join("memory.swap.max"), "0").optional(true);
        let undo = apply(vec![write], Old::Keep).unwrap();
        assert!(undo.0.is_empty());
    }
}
