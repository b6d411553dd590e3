//! Security contexts: profiles, labels, capabilities.

use joey_proto::cri;
use joey_proto::cri::security_profile::ProfileType;
use joey_runtime::model::{Capabilities, SecurityProfile, SelinuxOptions};

use super::unknown_value;
use crate::status::{Result, invalid};

/// A label without a part asks for nothing.
pub(super) fn selinux(options: Option<&cri::SeLinuxOption>) -> Option<SelinuxOptions> {
    let options = options.filter(|options| **options != cri::SeLinuxOption::default())?;
    Some(SelinuxOptions {
        user: options.user.clone(),
        role: options.role.clone(),
        kind: options.r#type.clone(),
        level: options.level.clone(),
    })
}

/// A seccomp profile: the new field beats the deprecated string, and no word at all is unconfined.
pub(super) fn seccomp(
    profile: Option<&cri::SecurityProfile>,
    deprecated: &str,
) -> Result<SecurityProfile> {
    match profile {
        Some(profile) => typed(profile, "seccomp"),
        None => named(
            deprecated,
            "seccomp_profile_path",
            SecurityProfile::Unconfined,
        ),
    }
}

/// An AppArmor profile: the new field beats the deprecated string, and no word at all is the
/// runtime's default profile (kubernetes/kubernetes#51746).
pub(super) fn apparmor(
    profile: Option<&cri::SecurityProfile>,
    deprecated: &str,
) -> Result<SecurityProfile> {
    match profile {
        Some(profile) => typed(profile, "apparmor"),
        None => named(
            deprecated,
            "apparmor_profile",
            SecurityProfile::RuntimeDefault,
        ),
    }
}

fn typed(profile: &cri::SecurityProfile, name: &str) -> Result<SecurityProfile> {
    match ProfileType::try_from(profile.profile_type) {
        Ok(ProfileType::RuntimeDefault) => Ok(SecurityProfile::RuntimeDefault),
        Ok(ProfileType::Unconfined) => Ok(SecurityProfile::Unconfined),
        Ok(ProfileType::Localhost) => localhost(&profile.localhost_ref, name),
        Err(_) => Err(unknown_value(
            &format!("{name}.profile_type"),
            profile.profile_type,
        )),
    }
}

fn named(text: &str, name: &str, unset: SecurityProfile) -> Result<SecurityProfile> {
    match text {
        "" => Ok(unset),
        "runtime/default" | "docker/default" => Ok(SecurityProfile::RuntimeDefault),
        "unconfined" => Ok(SecurityProfile::Unconfined),
        other if other.starts_with("localhost/") => localhost(other, name),
        other => Err(invalid(format!("{name} {other:?} is no profile"))),
    }
}

fn localhost(reference: &str, name: &str) -> Result<SecurityProfile> {
    let reference = reference.strip_prefix("localhost/").unwrap_or(reference);
    if reference.is_empty() {
        return Err(invalid(format!(
            "{name}: a Localhost profile needs localhost_ref"
        )));
    }
    Ok(SecurityProfile::Localhost(reference.to_owned()))
}

pub(super) fn capabilities(capability: &cri::Capability) -> Capabilities {
    Capabilities {
        add: capability.add_capabilities.clone(),
        drop: capability.drop_capabilities.clone(),
        add_ambient: capability.add_ambient_capabilities.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(kind: ProfileType, reference: &str) -> cri::SecurityProfile {
        cri::SecurityProfile {
            profile_type: kind as i32,
            localhost_ref: reference.into(),
        }
    }

    #[test]
    fn every_profile_type_is_mapped() {
        let cases = [
            (
                profile(ProfileType::RuntimeDefault, ""),
                SecurityProfile::RuntimeDefault,
            ),
            (
                profile(ProfileType::Unconfined, ""),
                SecurityProfile::Unconfined,
            ),
            (
                profile(ProfileType::Localhost, "/p.json"),
                SecurityProfile::Localhost("/p.json".into()),
            ),
            (
                profile(ProfileType::Localhost, "localhost/p"),
                SecurityProfile::Localhost("p".into()),
            ),
        ];
        for (given, wanted) in cases {
            assert_eq!(seccomp(Some(&given), "").unwrap(), wanted);
            assert_eq!(apparmor(Some(&given), "").unwrap(), wanted);
        }
    }

    #[test]
    fn deprecated_strings_are_mapped() {
        let cases = [
            ("runtime/default", SecurityProfile::RuntimeDefault),
            ("docker/default", SecurityProfile::RuntimeDefault),
            ("unconfined", SecurityProfile::Unconfined),
            (
                "localhost//p.json",
                SecurityProfile::Localhost("/p.json".into()),
            ),
        ];
        for (given, wanted) in cases {
            assert_eq!(seccomp(None, given).unwrap(), wanted);
            assert_eq!(apparmor(None, given).unwrap(), wanted);
        }
        assert_eq!(seccomp(None, "").unwrap(), SecurityProfile::Unconfined);
        assert_eq!(apparmor(None, "").unwrap(), SecurityProfile::RuntimeDefault);
    }

    #[test]
    fn the_new_field_beats_the_deprecated_string() {
        let unconfined = profile(ProfileType::Unconfined, "");
        assert_eq!(
            seccomp(Some(&unconfined), "localhost//p.json").unwrap(),
            SecurityProfile::Unconfined
        );
        assert_eq!(
            apparmor(Some(&unconfined), "localhost/p").unwrap(),
            SecurityProfile::Unconfined
        );
    }

    #[test]
    fn bad_profiles_are_refused() {
        let unknown = cri::SecurityProfile {
            profile_type: 9,
            localhost_ref: String::new(),
        };
        seccomp(Some(&unknown), "").unwrap_err();
        seccomp(Some(&profile(ProfileType::Localhost, "")), "").unwrap_err();
        seccomp(None, "localhost/").unwrap_err();
        apparmor(None, "somewhere").unwrap_err();
    }

    #[test]
    fn every_selinux_part_is_mapped() {
        let options = cri::SeLinuxOption {
            user: "u".into(),
            role: "r".into(),
            r#type: "t".into(),
            level: "l".into(),
        };
        assert_eq!(
            selinux(Some(&options)),
            Some(SelinuxOptions {
                user: "u".into(),
                role: "r".into(),
                kind: "t".into(),
                level: "l".into()
            })
        );
        assert_eq!(selinux(Some(&cri::SeLinuxOption::default())), None);
    }

    #[test]
    fn every_capability_list_is_mapped() {
        let given = cri::Capability {
            add_capabilities: vec!["NET_ADMIN".into()],
            drop_capabilities: vec!["ALL".into()],
            add_ambient_capabilities: vec!["CAP_CHOWN".into()],
        };
        assert_eq!(
            capabilities(&given),
            Capabilities {
                add: vec!["NET_ADMIN".into()],
                drop: vec!["ALL".into()],
                add_ambient: vec!["CAP_CHOWN".into()],
            }
        );
    }
}
