//! How much memory a group may have, and had at most.

use std::path::Path;

use crate::files;
use crate::group::Group;
use crate::read_back::V1_UNLIMITED;

/// The memory of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryAccount {
    /// Bytes; none without a limit.
    pub limit: Option<u64>,
    /// Bytes: the most that was ever used where the kernel tells it (v2 since Linux 5.19), else what
    /// is used now.
    pub usage: Option<u64>,
}

impl Group {
    /// Of this group; nothing where it is gone.
    #[must_use]
    pub fn memory_account(&self) -> MemoryAccount {
        self.memory_account_of(&self.path())
    }

    /// Of the group at `path` (as [`Group::path`] has it) on the same host.
    #[must_use]
    pub fn memory_account_of(&self, path: &Path) -> MemoryAccount {
        let path = path.strip_prefix("/").unwrap_or(path);
        if let Some(root) = self.layout.v1_root("memory") {
            let dir = root.join(path);
            return MemoryAccount {
                limit: number(&dir, "memory.limit_in_bytes"),
                usage: number(&dir, "memory.max_usage_in_bytes"),
            };
        }
        let Some(root) = self.layout.unified() else {
            return MemoryAccount::default();
        };
        let dir = root.join(path);
        MemoryAccount {
            limit: number(&dir, "memory.max"),
            usage: number(&dir, "memory.peak").or_else(|| number(&dir, "memory.current")),
        }
    }
}

fn number(dir: &Path, name: &str) -> Option<u64> {
    files::read_number(&dir.join(name)).filter(|number| *number < V1_UNLIMITED)
}
