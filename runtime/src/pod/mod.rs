//! The life of a pod sandbox.
//!
//! ```text
//! (none) ── run ──► Starting ──► Ready ── stop, shim lost, reboot ──► NotReady ── remove ──► (none)
//!                      └── a step fails: torn down, no record stays ──────────────────────────┘
//! ```
//!
//! Tear-down is one idempotent path, used by a failed run, a stop, a removal and the recovery.

mod files;
mod remove;
mod run;
mod stop;
mod watch;

use joey_cgroup::Driver;

use crate::runtime::Runtime;

impl Runtime {
    /// The cgroup parent of a pod: the kubelet's, or one of Joey's own.
    pub(crate) fn cgroup_parent(&self, wanted: &str, pod_id: &str) -> String {
        if !wanted.is_empty() {
            return wanted.to_owned();
        }
        let own = self.config.default_cgroup_parent.trim_end_matches('/');
        match self.cgroups.driver() {
            Driver::Cgroupfs if own.is_empty() => format!("/joey/pod{pod_id}"),
            Driver::Cgroupfs => format!("{own}/pod{pod_id}"),
            Driver::Systemd if own.is_empty() => format!("joey-pod{pod_id}.slice"),
            Driver::Systemd => {
                format!("{}-pod{pod_id}.slice", own.trim_end_matches(".slice"))
            }
        }
    }
}
