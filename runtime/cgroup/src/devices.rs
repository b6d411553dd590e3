//! Which device nodes a group may use: files on v1, a BPF program on v2.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use crate::bpf;
use crate::files::{self, FileError};
use crate::layout::{Layout, Version};
use crate::resources::DeviceRule;

/// Puts the rules into force, replacing those of an earlier call.
pub(crate) fn apply(layout: &Layout, path: &Path, rules: &[DeviceRule]) -> Result<(), FileError> {
    if layout.version() == Version::V2
        && let Some(root) = layout.unified()
    {
        let dir = root.join(path);
        return bpf::attach(&dir, rules)
            .map_err(|e| FileError::new("attach a device program to", &dir, e));
    }
    let Some(root) = layout.v1_root("devices") else {
        let missing = io::Error::new(
            io::ErrorKind::NotFound,
            "the cgroup \"devices\" controller is missing",
        );
        return Err(FileError::new("restrict devices of", path, missing));
    };
    apply_v1(&root.join(path), rules)
}

/// Puts the rules into force where others are; whether they were. On v2 nobody but us changes our
/// program.
pub(crate) fn restore(
    layout: &Layout,
    path: &Path,
    rules: &[DeviceRule],
) -> Result<bool, FileError> {
    let Some(root) = layout.v1_root("devices") else {
        return Ok(false);
    };
    let dir = root.join(path);
    let list = dir.join("devices.list");
    let read = || files::read(&list).map_err(|e| FileError::new("read", &list, e));
    let before = read()?;
    if steps(&before, rules).is_empty() || (is_total(rules) && before.starts_with('a')) {
        return Ok(false);
    }
    apply_v1(&dir, rules)?;
    Ok(read()? != before)
}

/// Everything is allowed, and nothing denied afterwards.
fn is_total(rules: &[DeviceRule]) -> bool {
    rules
        .last()
        .is_some_and(|rule| rule.allow && rule.is_total())
}

/// One step of v1.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Allow(String),
    Deny(String),
}

fn apply_v1(dir: &Path, rules: &[DeviceRule]) -> Result<(), FileError> {
    let list = dir.join("devices.list");
    let current = files::read(&list).map_err(|e| FileError::new("read", &list, e))?;
    let (allow, deny) = (dir.join("devices.allow"), dir.join("devices.deny"));
    let open = |path: &Path| {
        let file = OpenOptions::new().write(true).open(path);
        file.map_err(|e| FileError::new("open", path, e))
    };
    joey_failpoint::hit("cgroup.devices")
        .map_err(|e| FileError::new("restrict devices of", dir, e))?;
    let (allow_file, deny_file) = (open(&allow)?, open(&deny)?);
    for step in steps(&current, rules) {
        let (file, path, line) = match &step {
            Step::Allow(line) => (&allow_file, &allow, line),
            Step::Deny(line) => (&deny_file, &deny, line),
        };
        rustix::io::write(file, line.as_bytes())
            .map_err(|e| FileError::new(format!("write {line:?} to"), path, e.into()))?;
    }
    Ok(())
}

/// A running container keeps the use of devices that both old and new rules allow: where both are
/// plain lists, only the difference is written.
fn steps(current: &str, rules: &[DeviceRule]) -> Vec<Step> {
    let start = rules.iter().rposition(DeviceRule::is_total);
    let (total, rest) = match start {
        Some(at) => (rules[at].allow, &rules[at + 1..]),
        None => (false, rules),
    };
    if total {
        let mut all = vec![Step::Allow("a".to_owned())];
        all.extend(rest.iter().map(step));
        return all;
    }
    let had_list = !current.is_empty() && !current.lines().any(|l| l.starts_with('a'));
    let plain = rest.iter().all(|r| r.allow);
    if had_list && plain {
        let old: BTreeSet<String> = current.lines().map(str::to_owned).collect();
        let new: BTreeSet<String> = rest.iter().map(ToString::to_string).collect();
        let allowed = new.difference(&old).cloned().map(Step::Allow);
        // A denied line takes its letters from an overlapping one: allow again what must stay.
        let mut all: Vec<Step> = allowed.collect();
        let denied: Vec<Step> = old.difference(&new).cloned().map(Step::Deny).collect();
        if !denied.is_empty() {
            all.extend(denied);
            all.extend(new.iter().cloned().map(Step::Allow));
        }
        return all;
    }
    let mut all = vec![Step::Deny("a".to_owned())];
    all.extend(rest.iter().map(step));
    all
}

fn step(rule: &DeviceRule) -> Step {
    if rule.allow {
        Step::Allow(rule.to_string())
    } else {
        Step::Deny(rule.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::DeviceKind;

    fn null(allow: bool) -> DeviceRule {
        DeviceRule::new(allow, DeviceKind::Char, Some(1), Some(3), "rwm")
    }

    #[test]
    fn a_new_group_is_first_denied_everything() {
        let steps = steps("a *:* rwm", &[null(true)]);
        let expected = [Step::Deny("a".into()), Step::Allow("c 1:3 rwm".into())];
        assert_eq!(steps, expected);
    }

    #[test]
    fn privileged_is_one_write() {
        let rules = [null(true), DeviceRule::allow_all()];
        assert_eq!(steps("a *:* rwm", &rules), [Step::Allow("a".into())]);
    }

    #[test]
    fn a_changed_list_never_passes_through_deny_all() {
        let steps = steps("c 1:3 rwm\nc 1:5 rwm", &[null(true)]);
        let expected = [
            Step::Deny("c 1:5 rwm".into()),
            Step::Allow("c 1:3 rwm".into()),
        ];
        assert_eq!(steps, expected);
    }
}
