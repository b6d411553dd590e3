//! The final stage of a container's init and of its execs.

use joey_proto::shim;

use super::{capabilities, seccomp};
use crate::apparmor;
use crate::container::ExecConfig;
use crate::error::{Error, Result};
use crate::features::Features;
use crate::model::{ContainerRecord, GroupPolicy, PodRecord, SecurityProfile, User};
use crate::runtime::Runtime;
use crate::selinux::Labels;

/// A container's init.
pub(crate) fn init_process(
    runtime: &Runtime,
    pod: &PodRecord,
    record: &ContainerRecord,
) -> Result<shim::Process> {
    let labels = Labels::of(&runtime.features, pod, record);
    let security = &record.config.security;
    let copy = runtime.config.seccomp_profile(&record.id);
    let filter = seccomp(&runtime.seccomp, security, &copy)?;
    Ok(shim::Process {
        args: record
            .launch
            .args
            .iter()
            .map(|arg| arg.clone().into_bytes())
            .collect(),
        env: record
            .launch
            .env
            .iter()
            .map(|(key, value)| variable(key, value))
            .collect(),
        cwd: record.launch.cwd.clone(),
        user: Some(user(&security.user, &record.launch.image_user)),
        capabilities: Some(capabilities(security)?),
        no_new_privileges: security.no_new_privileges,
        seccomp: filter
            .as_ref()
            .map(|filter| filter.programs.clone())
            .unwrap_or_default(),
        seccomp_flags: filter
            .as_ref()
            .map(|filter| filter.flags)
            .unwrap_or_default(),
        rlimits: Vec::new(),
        // Never the daemon's own, which is almost exempt from the OOM killer.
        has_oom_score_adj: true,
        oom_score_adj: record.config.oom_score_adj.unwrap_or_default(),
        apparmor_profile: apparmor_profile(runtime, record),
        selinux_label: labels.map(|labels| labels.process).unwrap_or_default(),
        terminal: record.config.tty,
        umask: 0,
    })
}

/// A further process of a container: as its init but for what the exec asks.
pub(crate) fn exec_process(
    runtime: &Runtime,
    pod: &PodRecord,
    record: &ContainerRecord,
    exec: &ExecConfig,
) -> Result<shim::Process> {
    let mut process = init_process(runtime, pod, record)?;
    process.args = exec
        .command
        .iter()
        .map(|arg| arg.clone().into_bytes())
        .collect();
    process.terminal = exec.tty;
    process
        .env
        .extend(exec.env.iter().map(|entry| entry.clone().into_bytes()));
    if exec.tty && !record.config.tty {
        process.env.push(b"TERM=xterm".to_vec());
    }
    if let Some(folder) = &exec.working_dir {
        process.cwd.clone_from(folder);
    }
    if let Some(name) = &exec.user {
        process.user = Some(shim::User {
            name: name.clone(),
            ..shim::User::default()
        });
    }
    Ok(process)
}

/// # Errors
/// [`Error::Unsupported`] where a profile is asked for and the kernel has no AppArmor; a
/// RuntimeDefault one is left out there, as the kubelet expects.
pub(crate) fn check_apparmor(features: &Features, profile: &SecurityProfile) -> Result<()> {
    match profile {
        SecurityProfile::Localhost(name) if !features.apparmor => Err(Error::Unsupported {
            what: format!("AppArmor profile {name:?}"),
            why: "the kernel has AppArmor off".into(),
        }),
        SecurityProfile::Localhost(name) if !apparmor::is_loaded(name) => Err(Error::invalid(
            format!("AppArmor profile {name:?} is not loaded"),
        )),
        _ => Ok(()),
    }
}

fn apparmor_profile(runtime: &Runtime, record: &ContainerRecord) -> String {
    let security = &record.config.security;
    match &security.apparmor {
        _ if !runtime.features.apparmor => String::new(),
        // One that is named holds for a privileged container too, as with containerd.
        SecurityProfile::Localhost(name) => name.clone(),
        SecurityProfile::RuntimeDefault
            if !security.privileged && apparmor::is_loaded(apparmor::DEFAULT_PROFILE) =>
        {
            apparmor::DEFAULT_PROFILE.to_owned()
        }
        SecurityProfile::RuntimeDefault | SecurityProfile::Unconfined => String::new(),
    }
}

fn user(user: &User, image_user: &str) -> shim::User {
    let named = !user.name.is_empty();
    let from_image = user.uid.is_none() && !named;
    let name = if from_image { image_user } else { &user.name };
    shim::User {
        uid: user.uid.unwrap_or_default(),
        name: name.to_owned(),
        has_gid: user.gid.is_some(),
        gid: user.gid.unwrap_or_default(),
        additional_gids: user.supplemental_groups.clone(),
        strict_groups: user.group_policy == GroupPolicy::Strict,
    }
}

fn variable(key: &str, value: &[u8]) -> Vec<u8> {
    [key.as_bytes(), b"=", value].concat()
}
