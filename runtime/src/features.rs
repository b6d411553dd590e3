//! What this kernel has: probed once at start, shown in `joey info`.

use std::path::Path;

/// Kernel features that change what is offered. The floor is Linux 6.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
#[allow(clippy::struct_excessive_bools)]
pub struct Features {
    pub user_namespaces: bool,
    /// `mount_setattr` with `AT_RECURSIVE`, Linux 5.12.
    pub recursive_readonly: bool,
    /// Idmapped mounts, Linux 5.12.
    pub idmapped_mounts: bool,
    pub apparmor: bool,
    pub selinux: bool,
    pub seccomp: bool,
    /// Pressure stall information.
    pub psi: bool,
    pub swap: bool,
}

impl Features {
    pub(crate) fn probe() -> Self {
        let has = |path: &str| Path::new(path).exists();
        Self {
            user_namespaces: has("/proc/self/ns/user"),
            recursive_readonly: true,
            idmapped_mounts: true,
            apparmor: std::fs::read("/sys/module/apparmor/parameters/enabled")
                .is_ok_and(|text| text.starts_with(b"Y"))
                && has("/sys/kernel/security/apparmor"),
            selinux: has("/sys/fs/selinux/enforce"),
            seccomp: has("/proc/sys/kernel/seccomp/actions_avail"),
            psi: has("/proc/pressure/cpu"),
            swap: has("/proc/swaps"),
        }
    }
}
