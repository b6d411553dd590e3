//! Whom a container's process runs as.

use joey_proto::cri;
use joey_runtime::model::{GroupPolicy, User};

use super::{no_nul, unknown_value};
use crate::status::{Result, invalid};

/// The largest id; the one above means "no change" to the kernel.
const MAX_ID: i64 = u32::MAX as i64 - 1;

pub(super) fn user(context: &cri::LinuxContainerSecurityContext) -> Result<User> {
    let uid = context.run_as_user.as_ref().map(|id| id.value);
    let gid = context.run_as_group.as_ref().map(|id| id.value);
    let name = &context.run_as_username;
    no_nul(name.as_bytes(), "security_context.run_as_username")?;
    if uid.is_some() && !name.is_empty() {
        return Err(invalid(
            "security_context: run_as_user and run_as_username exclude each other",
        ));
    }
    if gid.is_some() && uid.is_none() && name.is_empty() {
        return Err(invalid(
            "security_context.run_as_group needs run_as_user or run_as_username",
        ));
    }
    for id in uid.iter().chain(&gid).chain(&context.supplemental_groups) {
        if !(0..=MAX_ID).contains(id) {
            return Err(invalid(format!(
                "security_context: {id} is no user or group id"
            )));
        }
    }
    let policy = context.supplemental_groups_policy;
    Ok(User {
        uid,
        name: name.clone(),
        gid,
        supplemental_groups: context.supplemental_groups.clone(),
        group_policy: match cri::SupplementalGroupsPolicy::try_from(policy) {
            Ok(cri::SupplementalGroupsPolicy::Merge) => GroupPolicy::Merge,
            Ok(cri::SupplementalGroupsPolicy::Strict) => GroupPolicy::Strict,
            Err(_) => {
                return Err(unknown_value(
                    "security_context.supplemental_groups_policy",
                    policy,
                ));
            }
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(value: i64) -> Option<cri::Int64Value> {
        Some(cri::Int64Value { value })
    }

    #[test]
    fn every_field_is_mapped() {
        let mapped = user(&cri::LinuxContainerSecurityContext {
            run_as_user: id(0),
            run_as_group: id(7),
            supplemental_groups: vec![8, 9],
            supplemental_groups_policy: 1,
            ..Default::default()
        });
        assert_eq!(
            mapped.unwrap(),
            User {
                uid: Some(0),
                name: String::new(),
                gid: Some(7),
                supplemental_groups: vec![8, 9],
                group_policy: GroupPolicy::Strict,
            }
        );
        let named = user(&cri::LinuxContainerSecurityContext {
            run_as_username: "www".into(),
            ..Default::default()
        });
        assert_eq!(
            named.unwrap(),
            User {
                name: "www".into(),
                ..User::default()
            }
        );
    }

    #[test]
    fn contradictions_are_refused() {
        let context = cri::LinuxContainerSecurityContext::default;
        let refused = [
            cri::LinuxContainerSecurityContext {
                run_as_group: id(1),
                ..context()
            },
            cri::LinuxContainerSecurityContext {
                run_as_user: id(1),
                run_as_username: "www".into(),
                ..context()
            },
            cri::LinuxContainerSecurityContext {
                run_as_user: id(-1),
                ..context()
            },
            cri::LinuxContainerSecurityContext {
                run_as_user: id(1 << 32),
                ..context()
            },
            cri::LinuxContainerSecurityContext {
                supplemental_groups: vec![-4],
                ..context()
            },
            cri::LinuxContainerSecurityContext {
                supplemental_groups_policy: 2,
                ..context()
            },
        ];
        for given in refused {
            assert!(user(&given).is_err(), "{given:?}");
        }
    }
}
