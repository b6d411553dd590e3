//! Which device nodes a group may use: files on v1, a BPF program on v2.

use std::collections::{BTreeMap, BTreeSet};
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
    if steps(&before, rules).is_empty() {
        return Ok(false);
    }
    apply_v1(&dir, rules)?;
    Ok(read()? != before)
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

/// A running container keeps the use of devices that both old and new rules allow: only the
/// difference is written, as far as the list in force tells it. The kernel refuses to allow or deny
/// everything where a group has children, as a privileged container's may.
fn steps(current: &str, rules: &[DeviceRule]) -> Vec<Step> {
    let allows_all = current.lines().any(|line| line.starts_with('a'));
    let start = rules.iter().rposition(DeviceRule::is_total);
    let (earlier, rest) = rules.split_at(start.map_or(0, |at| at + 1));
    if earlier.last().is_some_and(|total| total.allow) {
        // What is denied of everything no list tells: the total rule takes it back.
        let mut all: Vec<Step> = if allows_all {
            let denied = earlier
                .iter()
                .filter(|rule| !rule.allow && !rule.is_total());
            denied.map(|rule| Step::Allow(rule.to_string())).collect()
        } else {
            vec![Step::Allow("a".to_owned())]
        };
        all.extend(rest.iter().map(step));
        return all;
    }
    if current.is_empty() || allows_all {
        let mut all = vec![Step::Deny("a".to_owned())];
        all.extend(rest.iter().map(step));
        return all;
    }
    let old: BTreeSet<String> = current.lines().map(str::to_owned).collect();
    let new = allowed(rest);
    let added = new.difference(&old).cloned().map(Step::Allow);
    let mut all: Vec<Step> = added.collect();
    let denied: Vec<Step> = old.difference(&new).cloned().map(Step::Deny).collect();
    // A denied line takes its letters from one about the same devices: allow again what must stay.
    if !denied.is_empty() {
        all.extend(denied);
        all.extend(new.into_iter().map(Step::Allow));
    }
    all
}

/// The list that comes of rules one after the other. As in the kernel a denial takes letters from
/// the line about exactly its devices, never from a wider one.
fn allowed(rules: &[DeviceRule]) -> BTreeSet<String> {
    let mut lines: BTreeMap<String, DeviceRule> = BTreeMap::new();
    for rule in rules {
        let devices = DeviceRule::new(true, rule.kind, rule.major, rule.minor, "");
        let line = lines.entry(devices.to_string()).or_insert(devices);
        let change = |now: bool, named: bool| {
            if rule.allow {
                now || named
            } else {
                now && !named
            }
        };
        line.read = change(line.read, rule.read);
        line.write = change(line.write, rule.write);
        line.mknod = change(line.mknod, rule.mknod);
    }
    let some = lines.values().filter(|line| !line.access().is_empty());
    some.map(ToString::to_string).collect()
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

    fn zero(access: &str) -> DeviceRule {
        DeviceRule::new(true, DeviceKind::Char, Some(1), Some(5), access)
    }

    #[test]
    fn a_new_group_is_first_denied_everything() {
        let steps = steps("a *:* rwm", &[null(true)]);
        let expected = [Step::Deny("a".into()), Step::Allow("c 1:3 rwm".into())];
        assert_eq!(steps, expected);
    }

    #[test]
    fn privileged_is_one_write_where_not_everything_is_allowed() {
        let rules = [null(true), DeviceRule::allow_all()];
        assert_eq!(steps("c 1:5 rwm", &rules), [Step::Allow("a".into())]);
        assert!(steps("a *:* rwm", &rules).is_empty());
    }

    #[test]
    fn a_device_denied_of_everything_is_no_total_write() {
        let line = || "c 1:3 rwm".to_owned();
        let mut rules = vec![DeviceRule::allow_all(), null(false)];
        assert_eq!(steps("a *:* rwm", &rules), [Step::Deny(line())]);
        rules.push(DeviceRule::allow_all());
        assert_eq!(steps("a *:* rwm", &rules), [Step::Allow(line())]);
    }

    #[test]
    fn a_denied_device_is_all_that_a_list_loses() {
        let rules = [null(true), zero("rwm"), null(false)];
        let expected = [
            Step::Deny("c 1:3 rwm".into()),
            Step::Allow("c 1:5 rwm".into()),
        ];
        assert_eq!(steps("c 1:3 rwm\nc 1:5 rwm", &rules), expected);
        assert!(steps("c 1:5 rwm", &rules).is_empty());
        let again = [null(true), zero("rwm"), null(false), null(true)];
        let expected = [Step::Allow("c 1:3 rwm".into())];
        assert_eq!(steps("c 1:5 rwm", &again), expected);
    }

    #[test]
    fn the_letters_of_a_device_come_together_as_the_kernel_tells_them() {
        let rules = [zero("w"), zero("r"), zero("m"), null(false)];
        assert!(steps("c 1:5 rwm", &rules).is_empty());
        let denied = DeviceRule::new(false, DeviceKind::Char, Some(1), Some(5), "wm");
        assert!(steps("c 1:5 r", &[zero("rwm"), denied]).is_empty());
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
