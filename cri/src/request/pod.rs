//! `PodSandboxConfig`.

use std::net::IpAddr;

use joey_proto::cri;
use joey_runtime::model::{
    DnsConfig, NamespaceMode, Owner, PodConfig, PodSecurity, PortMapping, Protocol, UserNamespace,
};

use super::{id_mappings, non_empty, required, resources, security, sorted, unknown_value};
use crate::status::{Result, invalid};

/// The most characters a host name may have (`HOST_NAME_MAX`).
const MAX_HOSTNAME: usize = 64;

/// Checks and maps the config of a pod.
pub(crate) fn pod(config: cri::PodSandboxConfig, runtime_handler: String) -> Result<PodConfig> {
    let metadata = required(config.metadata, "config.metadata")?;
    non_empty(&metadata.name, "config.metadata.name")?;
    non_empty(&metadata.uid, "config.metadata.uid")?;
    non_empty(&metadata.namespace, "config.metadata.namespace")?;
    let linux = config.linux.unwrap_or_default();
    let context = linux.security_context.unwrap_or_default();
    let namespaces = context.namespace_options.clone().unwrap_or_default();
    Ok(PodConfig {
        owner: Owner::Cri,
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        attempt: metadata.attempt,
        hostname: hostname(config.hostname)?,
        log_directory: config.log_directory.into(),
        dns: config.dns_config.map(dns).transpose()?,
        port_mappings: config
            .port_mappings
            .iter()
            .map(port)
            .collect::<Result<_>>()?,
        labels: sorted(config.labels),
        annotations: sorted(config.annotations),
        runtime_handler,
        network: shared_namespace(namespaces.network, "network")?,
        isolated: false,
        pid: pid_namespace(namespaces.pid)?,
        ipc: shared_namespace(namespaces.ipc, "ipc")?,
        user_namespace: user_namespace(namespaces.userns_options.as_ref())?,
        cgroup_parent: linux.cgroup_parent,
        sysctls: sorted(linux.sysctls),
        security: pod_security(&context)?,
        overhead: linux.overhead.as_ref().map(resources).transpose()?,
        resources: linux.resources.as_ref().map(resources).transpose()?,
    })
}

fn hostname(name: String) -> Result<String> {
    if name.len() > MAX_HOSTNAME {
        return Err(invalid(format!(
            "hostname {name:?} has more than {MAX_HOSTNAME} characters"
        )));
    }
    if name.contains(['/', '\0', '\n', ' ']) {
        return Err(invalid(format!(
            "hostname {name:?} holds a character it can't have"
        )));
    }
    Ok(name)
}

/// Each entry becomes a word of resolv.conf, so none may start a new line.
fn dns(config: cri::DnsConfig) -> Result<DnsConfig> {
    for entry in config
        .servers
        .iter()
        .chain(&config.searches)
        .chain(&config.options)
    {
        if entry.contains(|c: char| c.is_control()) {
            return Err(invalid(format!(
                "dns_config: {entry:?} holds a control character"
            )));
        }
    }
    Ok(DnsConfig {
        servers: config.servers,
        searches: config.searches,
        options: config.options,
    })
}

fn port(mapping: &cri::PortMapping) -> Result<PortMapping> {
    let protocol = match cri::Protocol::try_from(mapping.protocol) {
        Ok(cri::Protocol::Tcp) => Protocol::Tcp,
        Ok(cri::Protocol::Udp) => Protocol::Udp,
        Ok(cri::Protocol::Sctp) => Protocol::Sctp,
        Err(_) => return Err(unknown_value("port_mappings.protocol", mapping.protocol)),
    };
    // Zero and less mean: not on the host.
    let host_port = u16::try_from(mapping.host_port.max(0)).map_err(|_| {
        invalid(format!(
            "port_mappings.host_port {} is no port",
            mapping.host_port
        ))
    })?;
    let container_port = u16::try_from(mapping.container_port).map_err(|_| {
        invalid(format!(
            "port_mappings.container_port {} is no port",
            mapping.container_port
        ))
    })?;
    if host_port != 0 && container_port == 0 {
        return Err(invalid(format!(
            "port_mappings: host port {host_port} without a container port"
        )));
    }
    if !mapping.host_ip.is_empty() && mapping.host_ip.parse::<IpAddr>().is_err() {
        return Err(invalid(format!(
            "port_mappings.host_ip {:?} is no address",
            mapping.host_ip
        )));
    }
    Ok(PortMapping {
        protocol,
        container_port,
        host_port,
        host_ip: mapping.host_ip.clone(),
    })
}

/// Network and IPC are the pod's or the host's.
fn shared_namespace(mode: i32, name: &str) -> Result<NamespaceMode> {
    match cri::NamespaceMode::try_from(mode) {
        Ok(cri::NamespaceMode::Pod) => Ok(NamespaceMode::Pod),
        Ok(cri::NamespaceMode::Node) => Ok(NamespaceMode::Node),
        Ok(mode @ (cri::NamespaceMode::Container | cri::NamespaceMode::Target)) => Err(invalid(
            format!("a pod's {name} namespace can't be {}", mode.as_str_name()),
        )),
        Err(_) => Err(unknown_value(&format!("namespace_options.{name}"), mode)),
    }
}

fn pid_namespace(mode: i32) -> Result<NamespaceMode> {
    match cri::NamespaceMode::try_from(mode) {
        Ok(cri::NamespaceMode::Pod) => Ok(NamespaceMode::Pod),
        Ok(cri::NamespaceMode::Container) => Ok(NamespaceMode::Container),
        Ok(cri::NamespaceMode::Node) => Ok(NamespaceMode::Node),
        Ok(cri::NamespaceMode::Target) => Err(invalid("a pod's pid namespace can't be TARGET")),
        Err(_) => Err(unknown_value("namespace_options.pid", mode)),
    }
}

/// A pod has its own user namespace only if that is asked for with mappings: older kubelets send
/// nothing.
pub(super) fn user_namespace(
    options: Option<&cri::UserNamespace>,
) -> Result<Option<UserNamespace>> {
    let Some(options) = options else {
        return Ok(None);
    };
    let mapped = !options.uids.is_empty() || !options.gids.is_empty();
    match cri::NamespaceMode::try_from(options.mode) {
        Ok(cri::NamespaceMode::Node) if mapped => {
            Err(invalid("userns_options: mode NODE can't have mappings"))
        }
        Ok(cri::NamespaceMode::Node) => Ok(None),
        Ok(cri::NamespaceMode::Pod) => {
            id_range(&options.uids, "uids")?;
            id_range(&options.gids, "gids")?;
            Ok(Some(UserNamespace {
                uids: id_mappings(&options.uids),
                gids: id_mappings(&options.gids),
            }))
        }
        Ok(mode @ (cri::NamespaceMode::Container | cri::NamespaceMode::Target)) => {
            Err(invalid(format!(
                "userns_options: mode {} is not supported",
                mode.as_str_name()
            )))
        }
        Err(_) => Err(unknown_value("userns_options.mode", options.mode)),
    }
}

fn id_range(mappings: &[cri::IdMapping], name: &str) -> Result<()> {
    let [mapping] = mappings else {
        return Err(invalid(format!(
            "userns_options.{name}: exactly one mapping is supported, not {}",
            mappings.len()
        )));
    };
    if mapping.length == 0 || mapping.container_id != 0 {
        return Err(invalid(format!(
            "userns_options.{name}: id 0 of the pod has to be mapped, the mapping is {}:{}:{}",
            mapping.container_id, mapping.host_id, mapping.length
        )));
    }
    if mapping.host_id.checked_add(mapping.length - 1).is_none() {
        return Err(invalid(format!(
            "userns_options.{name}: the host range exceeds 32 bits"
        )));
    }
    Ok(())
}

fn pod_security(context: &cri::LinuxSandboxSecurityContext) -> Result<PodSecurity> {
    if context.run_as_group.is_some() && context.run_as_user.is_none() {
        return Err(invalid("security_context.run_as_group needs run_as_user"));
    }
    if cri::SupplementalGroupsPolicy::try_from(context.supplemental_groups_policy).is_err() {
        return Err(unknown_value(
            "security_context.supplemental_groups_policy",
            context.supplemental_groups_policy,
        ));
    }
    Ok(PodSecurity {
        privileged: context.privileged,
        readonly_rootfs: context.readonly_rootfs,
        selinux: security::selinux(context.selinux_options.as_ref()),
        seccomp: security::seccomp(context.seccomp.as_ref(), deprecated_seccomp(context))?,
        apparmor: security::apparmor(context.apparmor.as_ref(), "")?,
        supplemental_groups: context.supplemental_groups.clone(),
    })
}

#[allow(deprecated, reason = "older clients send only this field")]
fn deprecated_seccomp(context: &cri::LinuxSandboxSecurityContext) -> &str {
    &context.seccomp_profile_path
}

#[cfg(test)]
#[path = "pod_tests.rs"]
mod tests;
