//! The writes that bring limits into force.

use std::path::PathBuf;

/// Why limits can't be put into force on this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The controller is not there: not mounted, not built in, or not delegated.
    #[error("{setting} can't be set: this host's cgroup {controller:?} controller is missing")]
    MissingController {
        /// `memory`, `cpu` …
        controller: String,
        /// The file.
        setting: String,
    },
    /// The controller is there, this file of it is not.
    #[error("{setting} can't be set: this host's kernel has no such file")]
    MissingFile {
        /// The file.
        setting: String,
    },
    /// `unified` is for v2.
    #[error("{key} can't be set: 'unified' resources need cgroup v2")]
    UnifiedOnV1 {
        /// The key.
        key: String,
    },
    /// `unified` names no file of a controller.
    #[error("'unified' key {key:?} is not the name of a controller's file")]
    BadUnifiedKey {
        /// The key.
        key: String,
    },
    /// They are counted together.
    #[error("memory and swap together, {total} bytes, are less than memory alone, {memory}")]
    SwapBelowMemory {
        /// Bytes of memory and swap.
        total: i64,
        /// Bytes of memory.
        memory: i64,
    },
    /// No page size of this host, or not written as the kernel does.
    #[error("huge page size {0:?} is not one of this host's")]
    BadPageSize(String),
}

/// What brings back the state before a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Restore {
    /// The content that was read before.
    Content,
    /// The line that began with `key`, else `default`: the file holds a line per device.
    Line { key: String, default: String },
}

/// One write into one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) path: PathBuf,
    pub(crate) value: String,
    pub(crate) restore: Restore,
    /// For the message when the file is not there.
    pub(crate) controller: String,
    /// No error when the file is not there: the host then has it so anyway.
    pub(crate) optional: bool,
}

impl Write {
    pub(crate) fn new(controller: &str, path: PathBuf, value: impl ToString) -> Self {
        Self {
            path,
            value: value.to_string(),
            restore: Restore::Content,
            controller: controller.to_owned(),
            optional: false,
        }
    }

    pub(crate) fn optional(mut self, optional: bool) -> Self {
        self.optional = optional;
        self
    }

    pub(crate) fn line(mut self, key: String, default: String) -> Self {
        self.restore = Restore::Line { key, default };
        self
    }

    /// The file's own name, for messages.
    pub(crate) fn setting(&self) -> String {
        self.path
            .file_name()
            .map_or_else(String::new, |n| n.to_string_lossy().into_owned())
    }
}

/// `−1` as v2 wants it.
pub(crate) fn max_or(value: i64) -> String {
    if value < 0 {
        "max".to_owned()
    } else {
        value.to_string()
    }
}

/// A page size as file names have it: `64KB`, `2MB`, `1GB`. Nothing else may become part of a path.
pub(crate) fn checked_page_size(size: &str) -> Result<&str, PlanError> {
    let digits = size.trim_end_matches("KB").trim_end_matches("MB");
    let digits = digits.trim_end_matches("GB");
    let sound = digits.len() + 2 == size.len()
        && !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit());
    if sound {
        Ok(size)
    } else {
        Err(PlanError::BadPageSize(size.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_can_not_lead_elsewhere() {
        for good in ["64KB", "2MB", "1GB"] {
            assert_eq!(checked_page_size(good), Ok(good));
        }
        for bad in ["", "MB", "2", "2MBMB", "../2MB", "2mb", "1KBMB"] {
            assert_eq!(
                checked_page_size(bad),
                Err(PlanError::BadPageSize(bad.to_owned())),
                "{bad}"
            );
        }
    }
}
