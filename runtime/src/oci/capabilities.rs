//! Which capabilities a container's process has.

use joey_proto::shim::Capabilities;

use crate::error::{Error, Result};
use crate::model::Security;

/// Every capability of Linux 6.x, in the kernel's order.
const ALL: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What a container has without being asked: the field's common default.
const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// The sets of a container's process. The inheritable set stays empty but for ambient ones
/// (CVE-2022-24769).
///
/// # Errors
/// [`Error::Invalid`] for a name the kernel does not have.
pub(crate) fn capabilities(security: &Security) -> Result<Capabilities> {
    let bounding = if security.privileged {
        current()
    } else {
        chosen(security)?
    };
    let mut ambient = Vec::new();
    for name in &security.capabilities.add_ambient {
        let name = full_name(name)?;
        if bounding.contains(&name) {
            ambient.push(name);
        }
    }
    Ok(Capabilities {
        effective: bounding.clone(),
        permitted: bounding.clone(),
        inheritable: ambient.clone(),
        bounding,
        ambient,
    })
}

fn chosen(security: &Security) -> Result<Vec<String>> {
    let changes = &security.capabilities;
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    // As containerd has it: dropping all beats adding all, single names come after both.
    let mut set: Vec<String> = if changes.drop.iter().any(is_all) {
        Vec::new()
    } else if changes.add.iter().any(is_all) {
        current()
    } else {
        DEFAULT.map(str::to_owned).to_vec()
    };
    let added = changes.add.iter().chain(&changes.add_ambient);
    for name in added.filter(|name| !is_all(name)) {
        let name = full_name(name)?;
        if !set.contains(&name) {
            set.push(name);
        }
    }
    for name in changes.drop.iter().filter(|name| !is_all(name)) {
        let name = full_name(name)?;
        set.retain(|kept| *kept != name);
    }
    Ok(set)
}

fn full_name(name: &str) -> Result<String> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") {
        upper
    } else {
        format!("CAP_{upper}")
    };
    if ALL.contains(&full.as_str()) {
        Ok(full)
    } else {
        Err(Error::invalid(format!("unknown capability {name:?}")))
    }
}

/// All that this daemon itself may give: on a restricted node that is fewer than all.
fn current() -> Vec<String> {
    let bounding = std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("CapBnd:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .unwrap_or(u64::MAX);
    ALL.iter()
        .enumerate()
        .filter(|(bit, _)| bounding & (1 << bit) != 0)
        .map(|(_, name)| (*name).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Capabilities as Changes;

    fn bounding(add: &[&str], drop: &[&str]) -> Vec<String> {
        let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let security = Security {
            capabilities: Changes {
                add: texts(add),
                drop: texts(drop),
                add_ambient: vec![],
            },
            ..Security::default()
        };
        capabilities(&security).unwrap().bounding
    }

    #[test]
    fn changes_apply_to_the_default() {
        let set = bounding(&["net_admin"], &["CAP_CHOWN"]);
        assert!(set.contains(&"CAP_NET_ADMIN".to_owned()));
        assert!(!set.contains(&"CAP_CHOWN".to_owned()));
        assert_eq!(set.len(), DEFAULT.len());
    }

    #[test]
    fn all_dropped_then_one_added() {
        assert_eq!(bounding(&["SYS_TIME"], &["ALL"]), ["CAP_SYS_TIME"]);
        assert!(!bounding(&["ALL"], &["SYS_TIME"]).contains(&"CAP_SYS_TIME".to_owned()));
        assert_eq!(bounding(&["ALL"], &["ALL"]), [""; 0]);
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let mut security = Security::default();
        security.capabilities.add.push("FLY".into());
        capabilities(&security).unwrap_err();
    }
}
