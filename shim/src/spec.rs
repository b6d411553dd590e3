//! The OCI spec that libcontainer is given: the daemon's, with the pod's namespaces put in and
//! everything taken out that the shim does itself.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use joey_proto::shim::{NamespaceMode, Start};
use oci_spec::runtime::{
    LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, ProcessBuilder, RootBuilder, Spec,
    UserBuilder,
};

use crate::error::{Failure, Result, Step};
use crate::masks::Masks;
use crate::namespaces::Pod;

/// A container's spec and what was taken out of it.
#[derive(Debug)]
pub struct Prepared {
    /// For libcontainer.
    pub spec: Spec,
    /// The container wants to see its cgroup, and may write it.
    pub cgroup: Option<CgroupMount>,
    /// The final stage hides these, when every volume is in place.
    pub masks: Masks,
    /// Libcontainer needs the host's mounts: for hooks, or sources of bind mounts.
    pub needs_host_tree: bool,
}

/// The spec's mount of type `cgroup`.
#[derive(Debug, Clone)]
pub struct CgroupMount {
    /// Its place in the container.
    pub destination: PathBuf,
    /// Whether it may be written.
    pub writable: bool,
}

/// Reads the bundle's `config.json` and prepares it.
pub fn prepare(
    start: &Start,
    pod: &Pod,
    target_pid: Option<&OwnedFd>,
    rootfs: &Path,
) -> Result<Prepared> {
    let path = Path::new(&start.bundle).join("config.json");
    let bytes = fs::read(&path).step_with(|| format!("read {}", path.display()))?;
    let mut spec: Spec = serde_json::from_slice(&bytes)
        .map_err(|error| Failure::new(format!("parse {}: {error}", path.display())))?;
    set_namespaces(&mut spec, start, pod, target_pid)?;
    let cgroup = take_cgroup_mount(&mut spec);
    let masks = take_masks(&mut spec);
    let build = |error: oci_spec::OciSpecError| Failure::new(format!("prepare the spec: {error}"));
    set_root(&mut spec, rootfs)?;
    let root = UserBuilder::default()
        .uid(0u32)
        .gid(0u32)
        .build()
        .map_err(build)?;
    // The final stage is the shim's: libcontainer leaves a privileged root at "/".
    let mut process = ProcessBuilder::default()
        .terminal(false)
        .user(root)
        .args(vec!["joey".to_owned()])
        .env(Vec::new())
        .cwd("/")
        .no_new_privileges(false)
        .build()
        .map_err(build)?;
    process
        .set_capabilities(None)
        .set_rlimits(None)
        .set_no_new_privileges(None)
        .set_oom_score_adj(None);
    spec.set_process(Some(process));
    // The pod's namespace has the host name already.
    spec.set_hostname(None);
    spec.set_domainname(None);
    let has_binds = spec.mounts().iter().flatten().any(|mount| {
        mount.typ().as_deref() == Some("bind")
            || mount
                .options()
                .iter()
                .flatten()
                .any(|option| option == "bind" || option == "rbind")
    });
    let needs_host_tree = has_binds || spec.hooks().is_some();
    Ok(Prepared {
        spec,
        cgroup,
        masks,
        needs_host_tree,
    })
}

/// Names the root file system; whether it is read-only is the final stage's.
pub fn set_root(spec: &mut Spec, path: &Path) -> Result<()> {
    let root = RootBuilder::default().path(path).readonly(false).build();
    spec.set_root(Some(root.map_err(|error| {
        Failure::new(format!("prepare the spec: {error}"))
    })?));
    Ok(())
}

fn namespace(kind: LinuxNamespaceType, fd: Option<&OwnedFd>) -> Result<LinuxNamespace> {
    let mut namespace = LinuxNamespaceBuilder::default()
        .typ(kind)
        .build()
        .map_err(|error| Failure::new(format!("prepare the namespaces: {error}")))?;
    namespace.set_path(fd.map(|fd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))));
    Ok(namespace)
}

fn set_namespaces(
    spec: &mut Spec,
    start: &Start,
    pod: &Pod,
    target_pid: Option<&OwnedFd>,
) -> Result<()> {
    let mut linux = spec.linux().clone().unwrap_or_default();
    let listed = |kind| {
        linux
            .namespaces()
            .iter()
            .flatten()
            .any(|namespace| namespace.typ() == kind)
    };
    let mut namespaces = vec![namespace(LinuxNamespaceType::Mount, None)?];
    for kind in [LinuxNamespaceType::Cgroup, LinuxNamespaceType::Time] {
        if listed(kind) {
            namespaces.push(namespace(kind, None)?);
        }
    }
    for (kind, fd) in [
        (LinuxNamespaceType::User, pod.user.as_ref()),
        (LinuxNamespaceType::Uts, pod.uts.as_ref()),
        (
            LinuxNamespaceType::Ipc,
            pod.ipc.as_ref().filter(|_| !start.ipc_node),
        ),
        (
            LinuxNamespaceType::Network,
            pod.network.as_ref().filter(|_| !start.network_node),
        ),
    ] {
        if fd.is_some() {
            namespaces.push(namespace(kind, fd)?);
        }
    }
    let missing =
        |what: &str| Failure::with_errno(libc::EINVAL, format!("join the PID namespace: {what}"));
    match start.pid_mode() {
        NamespaceMode::Private => namespaces.push(namespace(LinuxNamespaceType::Pid, None)?),
        NamespaceMode::Pod => {
            let pid = pod
                .pid
                .as_ref()
                .ok_or_else(|| missing("the pod has none to share"))?;
            namespaces.push(namespace(LinuxNamespaceType::Pid, Some(pid))?);
        }
        NamespaceMode::Target => {
            let pid = target_pid.ok_or_else(|| missing("the target container does not run"))?;
            namespaces.push(namespace(LinuxNamespaceType::Pid, Some(pid))?);
        }
        NamespaceMode::Node => {}
    }
    let propagation = linux.rootfs_propagation().as_deref().map(|name| {
        let name = name.strip_prefix('r').unwrap_or(name);
        if name == "private" { "slave" } else { name }.to_owned()
    });
    linux
        .set_namespaces(Some(namespaces))
        .set_uid_mappings(None)
        .set_gid_mappings(None)
        .set_rootfs_propagation(propagation)
        .set_seccomp(None)
        .set_resources(None)
        .set_cgroups_path(None);
    spec.set_linux(Some(linux));
    Ok(())
}

fn take_masks(spec: &mut Spec) -> Masks {
    let Some(mut linux) = spec.linux().clone() else {
        return Masks::default();
    };
    let masks = Masks {
        hidden: linux.masked_paths().clone().unwrap_or_default(),
        read_only: linux.readonly_paths().clone().unwrap_or_default(),
    };
    linux.set_masked_paths(None).set_readonly_paths(None);
    spec.set_linux(Some(linux));
    masks
}

fn take_cgroup_mount(spec: &mut Spec) -> Option<CgroupMount> {
    let mut mounts = spec.mounts().clone()?;
    let place = mounts
        .iter()
        .position(|mount| matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2")))?;
    let mount = mounts.remove(place);
    spec.set_mounts(Some(mounts));
    let read_only = mount
        .options()
        .iter()
        .flatten()
        .any(|option| option == "ro");
    Some(CgroupMount {
        destination: mount.destination().clone(),
        writable: !read_only,
    })
}
