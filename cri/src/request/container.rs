//! `ContainerConfig`.

use std::path::{Component, Path, PathBuf};

use joey_proto::cri;
use joey_runtime::model::{ContainerConfig, ImageIdentity, PidMode, PodConfig, Security};

use super::{
    devices, identity, mounts, no_nul, non_empty, oom_score_adj, pod::user_namespace, required,
    resources, security, signal, sorted, unknown_value,
};
use crate::status::{Failure, Result, invalid};

/// Checks and maps the config of a container in `pod`; `image_id` gives the id of a present image
/// by any of its names.
pub(crate) fn container(
    config: cri::ContainerConfig,
    pod: &PodConfig,
    image_id: impl Fn(&str) -> Option<String>,
) -> Result<ContainerConfig> {
    let metadata = required(config.metadata.clone(), "config.metadata")?;
    non_empty(&metadata.name, "config.metadata.name")?;
    for word in config
        .command
        .iter()
        .chain(&config.args)
        .chain([&config.working_dir])
    {
        no_nul(word.as_bytes(), "command, args or working_dir")?;
    }
    let linux = config.linux.clone().unwrap_or_default();
    let context = linux.security_context.unwrap_or_default();
    check_against_pod(&context, pod)?;
    Ok(ContainerConfig {
        image: image(config.image.as_ref(), &image_id)?,
        env: config.envs.iter().map(env).collect::<Result<_>>()?,
        mounts: config
            .mounts
            .iter()
            .map(|mount| mounts::mount(mount, &image_id))
            .collect::<Result<_>>()?,
        devices: config
            .devices
            .iter()
            .map(devices::device)
            .collect::<Result<_>>()?,
        cdi_devices: config
            .cdi_devices
            .iter()
            .map(devices::cdi_device)
            .collect::<Result<_>>()?,
        log_path: log_path(&pod.log_directory, &config.log_path)?,
        log_rotation: None, // the kubelet rotates
        resources: linux
            .resources
            .as_ref()
            .map(resources)
            .transpose()?
            .unwrap_or_default(),
        oom_score_adj: linux.resources.as_ref().map(oom_score_adj).transpose()?,
        security: container_security(&context)?,
        pid: pid(context.namespace_options.as_ref())?,
        stop_signal: signal::to_name(config.stop_signal)?,
        name: metadata.name,
        attempt: metadata.attempt,
        command: config.command,
        args: config.args,
        working_dir: config.working_dir,
        labels: sorted(config.labels),
        annotations: sorted(config.annotations),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
    })
}

/// The image's name in a request.
pub(crate) fn image_name(image: Option<&cri::ImageSpec>) -> Result<&str> {
    let name = image.map_or("", |image| image.image.as_str());
    non_empty(name, "image.image")?;
    Ok(name)
}

fn image(
    spec: Option<&cri::ImageSpec>,
    image_id: impl Fn(&str) -> Option<String>,
) -> Result<ImageIdentity> {
    let name = image_name(spec)?;
    let id = image_id(name).ok_or_else(|| Failure::NotFound {
        kind: "image",
        id: name.to_owned(),
    })?;
    Ok(ImageIdentity {
        id,
        reference: name.to_owned(),
        user_specified: spec
            .map(|spec| spec.user_specified_image.clone())
            .unwrap_or_default(),
        runtime_handler: spec
            .map(|spec| spec.runtime_handler.clone())
            .unwrap_or_default(),
    })
}

fn env(variable: &cri::KeyValue) -> Result<(String, Vec<u8>)> {
    let key = &variable.key;
    if key.is_empty() || key.contains(['=', '\0']) {
        return Err(invalid(format!("envs: {key:?} can't name a variable")));
    }
    no_nul(&variable.value, &format!("envs: the value of {key}"))?;
    Ok((key.clone(), variable.value.to_vec()))
}

/// Where the log goes; None where either part is missing, then nothing is logged.
fn log_path(directory: &Path, path: &str) -> Result<Option<PathBuf>> {
    if path.is_empty() || directory.as_os_str().is_empty() {
        return Ok(None);
    }
    no_nul(path.as_bytes(), "log_path")?;
    let relative = Path::new(path.trim_start_matches('/'));
    if relative
        .components()
        .any(|part| part == Component::ParentDir)
    {
        return Err(invalid(format!(
            "log_path {path:?} leads out of the log directory"
        )));
    }
    Ok(Some(directory.join(relative)))
}

fn check_against_pod(context: &cri::LinuxContainerSecurityContext, pod: &PodConfig) -> Result<()> {
    if context.privileged && !pod.security.privileged {
        return Err(invalid(
            "a privileged container needs a privileged pod sandbox",
        ));
    }
    let options = context.namespace_options.as_ref();
    let own = user_namespace(options.and_then(|options| options.userns_options.as_ref()))?;
    if own.is_some() && own != pod.user_namespace {
        return Err(invalid(
            "the container's user namespace differs from the pod sandbox's",
        ));
    }
    Ok(())
}

fn pid(options: Option<&cri::NamespaceOption>) -> Result<PidMode> {
    let Some(options) = options else {
        return Ok(PidMode::Pod);
    };
    match cri::NamespaceMode::try_from(options.pid) {
        Ok(cri::NamespaceMode::Pod) => Ok(PidMode::Pod),
        Ok(cri::NamespaceMode::Container) => Ok(PidMode::Container),
        Ok(cri::NamespaceMode::Node) => Ok(PidMode::Node),
        Ok(cri::NamespaceMode::Target) => {
            non_empty(&options.target_id, "namespace_options.target_id")?;
            Ok(PidMode::Target(options.target_id.clone()))
        }
        Err(_) => Err(unknown_value("namespace_options.pid", options.pid)),
    }
}

fn container_security(context: &cri::LinuxContainerSecurityContext) -> Result<Security> {
    let (seccomp, apparmor) = deprecated_profiles(context);
    for path in context.masked_paths.iter().chain(&context.readonly_paths) {
        no_nul(path.as_bytes(), "masked_paths or readonly_paths")?;
    }
    Ok(Security {
        privileged: context.privileged,
        // Its pod's handler says.
        privileged_without_host_devices: false,
        capabilities: context
            .capabilities
            .as_ref()
            .map(security::capabilities)
            .unwrap_or_default(),
        user: identity::user(context)?,
        readonly_rootfs: context.readonly_rootfs,
        no_new_privileges: context.no_new_privs,
        masked_paths: context.masked_paths.clone(),
        readonly_paths: context.readonly_paths.clone(),
        seccomp: security::seccomp(context.seccomp.as_ref(), seccomp)?,
        apparmor: security::apparmor(context.apparmor.as_ref(), apparmor)?,
        selinux: security::selinux(context.selinux_options.as_ref()),
    })
}

#[allow(deprecated, reason = "older clients send only these fields")]
fn deprecated_profiles(context: &cri::LinuxContainerSecurityContext) -> (&str, &str) {
    (&context.seccomp_profile_path, &context.apparmor_profile)
}

#[cfg(test)]
#[path = "container_tests.rs"]
mod tests;
