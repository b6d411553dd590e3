//! SELinux labels of containers: what is asked for, completed as container policies name it.

use crate::error::{Error, Result};
use crate::features::Features;
use crate::model::{ContainerRecord, PodRecord, SelinuxOptions};

const USER: &str = "system_u";
const ROLE: &str = "system_r";
const TYPE: &str = "container_t";
const LEVEL: &str = "s0";
const FILE_ROLE: &str = "object_r";
const FILE_TYPE: &str = "container_file_t";

/// The labels of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Labels {
    /// Of its processes.
    pub(crate) process: String,
    /// Of its files: the root file system and volumes that are to be relabelled.
    pub(crate) file: String,
}

impl Labels {
    /// A container's, by its own options or else its pod's; those do not confine a privileged one.
    /// None where nothing is asked for.
    pub(crate) fn of(
        features: &Features,
        pod: &PodRecord,
        record: &ContainerRecord,
    ) -> Option<Self> {
        let security = &record.config.security;
        let of_pod = pod.config.security.selinux.as_ref();
        let of_pod = of_pod.filter(|_| !security.privileged);
        let asked = security.selinux.as_ref().or(of_pod)?;
        features.selinux.then(|| Self::from(asked))
    }

    /// Those of what a pod's containers share.
    pub(crate) fn of_pod(features: &Features, pod: &PodRecord) -> Option<Self> {
        let asked = pod.config.security.selinux.as_ref()?;
        features.selinux.then(|| Self::from(asked))
    }

    fn from(asked: &SelinuxOptions) -> Self {
        fn or<'a>(given: &'a str, default: &'a str) -> &'a str {
            if given.is_empty() { default } else { given }
        }
        let (user, level) = (or(&asked.user, USER), or(&asked.level, LEVEL));
        let (role, kind) = (or(&asked.role, ROLE), or(&asked.kind, TYPE));
        Self {
            process: format!("{user}:{role}:{kind}:{level}"),
            file: format!("{user}:{FILE_ROLE}:{FILE_TYPE}:{level}"),
        }
    }
}

/// # Errors
/// [`Error::Unsupported`] where the kernel has no SELinux, [`Error::Invalid`] for what can't be part
/// of a label.
pub(crate) fn check(features: &Features, asked: Option<&SelinuxOptions>) -> Result<()> {
    let Some(asked) = asked else { return Ok(()) };
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    for (name, part) in [
        ("user", &asked.user),
        ("role", &asked.role),
        ("type", &asked.kind),
    ] {
        if !part.chars().all(word) {
            return Err(Error::invalid(format!(
                "SELinux {name} {part:?} can't be part of a label"
            )));
        }
    }
    // Also in quotes in a mount's options.
    let level = |c: char| word(c) || matches!(c, ':' | ',');
    if !asked.level.chars().all(level) {
        return Err(Error::invalid(format!(
            "SELinux level {:?} can't be part of a label",
            asked.level
        )));
    }
    if !features.selinux {
        return Err(Error::Unsupported {
            what: "an SELinux label".into(),
            why: "the kernel has no SELinux".into(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(user: &str, kind: &str, level: &str) -> SelinuxOptions {
        SelinuxOptions {
            user: user.into(),
            kind: kind.into(),
            level: level.into(),
            ..SelinuxOptions::default()
        }
    }

    #[test]
    fn what_is_not_asked_for_is_as_container_policies_have_it() {
        let some = Labels::from(&options("", "spc_t", "s0:c1,c2"));
        assert_eq!(some.process, "system_u:system_r:spc_t:s0:c1,c2");
        assert_eq!(some.file, "system_u:object_r:container_file_t:s0:c1,c2");
        let none = Labels::from(&SelinuxOptions::default());
        assert_eq!(none.process, "system_u:system_r:container_t:s0");
    }

    #[test]
    fn labels_are_refused_without_selinux_and_odd_parts_with_it() {
        let mut features = Features::probe();
        features.selinux = false;
        check(&features, None).unwrap();
        let refused = check(&features, Some(&options("", "", "s0"))).unwrap_err();
        assert!(refused.to_string().contains("no SELinux"), "{refused}");
        features.selinux = true;
        check(&features, Some(&options("u", "t_t", "s0-s0:c0.c3"))).unwrap();
        for (wrong, named) in [
            (options("a:b", "", ""), "user \"a:b\""),
            (options("", "t t", ""), "type \"t t\""),
            (options("", "", "s0\""), "level"),
        ] {
            let refused = check(&features, Some(&wrong)).unwrap_err();
            assert!(refused.to_string().contains(named), "{refused}");
        }
    }
}
