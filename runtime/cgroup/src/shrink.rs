//! Room for a lower memory limit.
//!
//! On v2 a `memory.max` below what is used kills (memory_max_write of the kernel). So what is used is
//! first brought below the new limit: `memory.high`, `memory.reclaim`, and only then `memory.max`. On
//! v1 the kernel itself refuses a limit that it can't reclaim to.

use std::path::{Path, PathBuf};

use crate::apply::UpdateError;
use crate::files;

/// What must stay free beneath a new limit: what a busy container allocates while the limit is
/// being set.
const MARGIN_BYTES: u64 = 1 << 20;

/// The kernel rounds throttles down to pages, which have up to this many bytes.
const LARGEST_PAGE: u64 = 64 << 10;

/// Holds a group below a limit that is about to come into force; ends when dropped.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Held(Option<Throttle>);

#[derive(Debug)]
struct Throttle {
    path: PathBuf,
    /// As the kernel tells it: it rounds down to pages.
    set: String,
    old: String,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(Throttle { path, set, old }) = self.0.take()
            // Who wrote another one meanwhile wants that.
            && files::read(&path).is_ok_and(|now| now == set)
            && let Err(error) = files::write(&path, &old)
        {
            tracing::warn!(path = %path.display(), value = old, %error,
                "an old memory throttle could not be restored");
        }
    }
}

/// Where usage is brought to before a limit comes into force, bytes.
fn target(limit: u64) -> u64 {
    limit.saturating_sub(MARGIN_BYTES.min(limit / 8))
}

/// Brings the usage of a v2 group below a limit that is lower than what it has.
///
/// # Errors
/// [`UpdateError::MemoryInUse`] where it can't be; nothing is changed then.
pub(crate) fn make_room(dir: &Path, limit: u64) -> Result<Held, UpdateError> {
    let present = files::read_number(&dir.join("memory.max"));
    if present.is_some_and(|present| present <= limit) {
        return Ok(Held::default());
    }
    let usage = || files::read_number(&dir.join("memory.current")).unwrap_or(0);
    let target = target(limit);
    if usage() <= target {
        return Ok(Held::default());
    }
    let high = dir.join("memory.high");
    let old = files::read(&high).unwrap_or_else(|_| "max".to_owned());
    // A lower throttle of its own is stricter already.
    let own = files::read_number(&high).unwrap_or(u64::MAX);
    let mut held = Held::default();
    if own > target && files::write(&high, &target.to_string()).is_ok() {
        let set = files::read(&high).unwrap_or_default();
        held.0 = Some(Throttle {
            path: high,
            set,
            old,
        });
    }
    // Since Linux 5.19; before, the write to memory.high alone reclaims. EAGAIN: less was reclaimed.
    if let Some(excess) = usage().checked_sub(target).filter(|excess| *excess > 0) {
        drop(files::write(
            &dir.join("memory.reclaim"),
            &excess.to_string(),
        ));
    }
    let usage = usage();
    if usage > target {
        return Err(UpdateError::MemoryInUse { usage, limit });
    }
    Ok(held)
}

/// Ends the throttle that a killed process left while it made room for this limit.
pub(crate) fn release(dir: &Path, limit: u64) {
    let high = dir.join("memory.high");
    let rounded = files::read_number(&high).and_then(|high| target(limit).checked_sub(high));
    if rounded.is_some_and(|bytes| bytes < LARGEST_PAGE)
        && let Err(error) = files::write(&high, "max")
    {
        tracing::warn!(path = %high.display(), %error, "a memory throttle stays in force");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(current: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("memory.current"), current).unwrap();
        std::fs::write(dir.path().join("memory.high"), "max").unwrap();
        std::fs::write(dir.path().join("memory.reclaim"), "").unwrap();
        dir
    }

    #[test]
    fn a_limit_above_the_usage_needs_no_step() {
        let dir = group("1000000");
        drop(make_room(dir.path(), 100 << 20).unwrap());
        let high = std::fs::read_to_string(dir.path().join("memory.high"));
        assert_eq!(high.unwrap(), "max");
    }

    #[test]
    fn a_limit_that_is_in_force_needs_no_room() {
        let dir = group("104857600");
        std::fs::write(dir.path().join("memory.max"), "104857600").unwrap();
        drop(make_room(dir.path(), 100 << 20).unwrap());
        let reclaimed = std::fs::read_to_string(dir.path().join("memory.reclaim"));
        assert_eq!(reclaimed.unwrap(), "");
        std::fs::write(dir.path().join("memory.max"), "max").unwrap();
        make_room(dir.path(), 100 << 20).unwrap_err();
    }

    #[test]
    fn only_the_throttle_of_this_limit_is_ended() {
        let dir = group("0");
        let high = dir.path().join("memory.high");
        std::fs::write(&high, (99 << 20).to_string()).unwrap();
        release(dir.path(), 50 << 20);
        assert_eq!(
            std::fs::read_to_string(&high).unwrap(),
            (99 << 20).to_string()
        );
        release(dir.path(), 100 << 20);
        assert!(std::fs::read_to_string(&high).unwrap().starts_with("max"));
    }

    #[test]
    fn a_limit_below_what_can_not_be_reclaimed_is_refused_and_the_throttle_taken_back() {
        let dir = group("50000000");
        let error = make_room(dir.path(), 10 << 20).unwrap_err();
        assert!(
            matches!(error, UpdateError::MemoryInUse { usage: 50_000_000, limit } if limit == 10 << 20)
        );
        // Plain files keep what a shorter write leaves behind it, unlike the kernel's.
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert!(read("memory.high").starts_with("max"));
        let excess = 50_000_000 - ((10 << 20) - (1 << 20));
        assert_eq!(read("memory.reclaim"), excess.to_string());
    }
}
