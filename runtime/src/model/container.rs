//! Containers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use joey_cgroup::{Group, Resources};
use serde::{Deserialize, Serialize};

use crate::cdi::Edits;
use crate::resources::{Overlay, compose};

use super::end::{Exit, StopRequest};
use super::{IdMapping, SecurityProfile, SelinuxOptions};

/// Where a container's PID namespace comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum PidMode {
    /// Shared by the pod.
    Pod,
    /// Its own.
    #[default]
    Container,
    /// The host's.
    Node,
    /// Another container's of the same pod, by id.
    Target(String),
}

/// How mounts travel between the host and a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum Propagation {
    /// Neither way.
    #[default]
    Private,
    /// Later host mounts are seen inside.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A file or folder of the host.
    Host(PathBuf),
    /// The content of an image, by id and by the name it was asked for.
    Image {
        /// `sha256:…`.
        id: String,
        /// As asked for.
        reference: String,
        /// As the user wrote it in the pod.
        #[serde(default)]
        user_specified: String,
        /// A folder inside the image.
        sub_path: String,
    },
}

/// A mount asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What is mounted.
    pub source: MountSource,
    /// Absolute, inside.
    pub destination: PathBuf,
    /// Not writable.
    pub readonly: bool,
    /// Nor are the mounts beneath.
    pub recursive_readonly: bool,
    /// SELinux relabelling asked for.
    pub selinux_relabel: bool,
    /// Propagation.
    pub propagation: Propagation,
    /// Id mapping of this mount.
    pub uids: Vec<IdMapping>,
    /// Id mapping of this mount.
    pub gids: Vec<IdMapping>,
}

/// A device node asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// On the host; a folder means every device in it.
    pub host_path: PathBuf,
    /// Inside.
    pub container_path: PathBuf,
    /// Of `rwm`.
    pub permissions: String,
}

/// Changes to the default capabilities, without the `CAP_` prefix or with it; `ALL` is every one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Capabilities {
    /// Added to bounding, permitted, effective.
    pub add: Vec<String>,
    /// Taken away.
    pub drop: Vec<String>,
    /// Added to the ambient set too.
    pub add_ambient: Vec<String>,
}

/// What becomes of the image's own group memberships.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum GroupPolicy {
    /// They are added.
    #[default]
    Merge,
    /// Only groups asked for.
    Strict,
}

/// The user asked for; neither id nor name: the image's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct User {
    /// User id.
    pub uid: Option<i64>,
    /// User name, in the image's /etc/passwd.
    pub name: String,
    /// Group id.
    pub gid: Option<i64>,
    /// More group ids.
    pub supplemental_groups: Vec<i64>,
    /// The image's own memberships.
    pub group_policy: GroupPolicy,
}

/// A container's security context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Security {
    /// Every capability and device, nothing masked.
    pub privileged: bool,
    /// A privileged container does not get the host's devices; said by the pod's runtime handler.
    #[serde(default)]
    pub privileged_without_host_devices: bool,
    /// Capability changes.
    pub capabilities: Capabilities,
    /// The user.
    pub user: User,
    /// The root file system is not writable.
    pub readonly_rootfs: bool,
    /// `no_new_privs`.
    pub no_new_privileges: bool,
    /// Hidden paths.
    pub masked_paths: Vec<String>,
    /// Paths made read-only.
    pub readonly_paths: Vec<String>,
    /// Seccomp.
    pub seccomp: SecurityProfile,
    /// AppArmor.
    pub apparmor: SecurityProfile,
    /// SELinux.
    pub selinux: Option<SelinuxOptions>,
}

/// The image of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct ImageIdentity {
    /// `sha256:…`: the id `PullImage` returned.
    pub id: String,
    /// As the client named it in CreateContainer.
    pub reference: String,
    /// As the user wrote it in the pod.
    pub user_specified: String,
    /// The runtime handler it was pulled for.
    pub runtime_handler: String,
}

/// When a log goes on in a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRotation {
    /// Before it grows beyond this.
    pub max_bytes: u64,
    /// Files that are kept, with the current one.
    pub max_files: u32,
}

/// A container as asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct ContainerConfig {
    /// Name within the pod.
    pub name: String,
    /// Counts restarts.
    pub attempt: u32,
    /// Its image.
    pub image: ImageIdentity,
    /// Replaces the image's entrypoint.
    pub command: Vec<String>,
    /// Replaces the image's command.
    pub args: Vec<String>,
    /// Empty: the image's.
    pub working_dir: String,
    /// On top of the image's. Values are bytes: they need not be UTF-8.
    pub env: Vec<(String, Vec<u8>)>,
    /// In order.
    pub mounts: Vec<Mount>,
    /// Device nodes.
    pub devices: Vec<Device>,
    /// Fully qualified CDI device names.
    pub cdi_devices: Vec<String>,
    /// Returned unchanged.
    pub labels: BTreeMap<String, String>,
    /// Returned unchanged.
    pub annotations: BTreeMap<String, String>,
    /// Absolute; None: no log.
    pub log_path: Option<PathBuf>,
    /// Of the log by the shim; None: the client rotates it.
    pub log_rotation: Option<LogRotation>,
    /// Standard input can be attached.
    pub stdin: bool,
    /// Standard input closes after the first attach.
    pub stdin_once: bool,
    /// A terminal.
    pub tty: bool,
    /// Cgroup limits.
    pub resources: Resources,
    /// Of the out-of-memory killer, −1000 … 1000.
    pub oom_score_adj: Option<i32>,
    /// Security context.
    pub security: Security,
    /// PID namespace.
    pub pid: PidMode,
    /// `SIGTERM` …; None: the image's, else SIGTERM.
    pub stop_signal: Option<String>,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Its process runs.
    Running,
    /// Its process ended, or never started.
    Exited,
    /// Can't be known.
    Unknown,
}

/// User ids in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[allow(missing_docs)]
pub struct ResolvedUser {
    pub uid: i64,
    pub gid: i64,
    pub groups: Vec<i64>,
}

/// A process that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// On the host.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: tells a reused pid.
    pub start_ticks: u64,
    /// ns since the epoch.
    pub at: i64,
    /// User ids in force.
    pub user: ResolvedUser,
}

/// What a container's init is, decided when the container was made: the image may go before the
/// container does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Launch {
    /// Program and arguments.
    pub args: Vec<String>,
    /// The image's environment with the request's on top.
    pub env: Vec<(String, Vec<u8>)>,
    /// Working folder.
    pub cwd: String,
    /// `user[:group]` of the image's config, where the request names none.
    pub image_user: String,
    /// Number of the signal that asks it to end.
    pub stop_signal: u32,
}

/// A container's record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// [`super::RECORD_VERSION`].
    pub version: u32,
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its pod.
    pub pod_id: String,
    /// As asked for; what limits it has is [`ContainerRecord::resources`].
    pub config: ContainerConfig,
    /// On top of the limits asked for, the topmost last.
    #[serde(default)]
    pub overlays: Vec<Overlay>,
    /// ns since the epoch.
    pub created_at: i64,
    /// Its cgroup.
    pub cgroup: Group,
    /// Set by a start.
    #[serde(default)]
    pub started: Option<Started>,
    /// Who asked it to end, last.
    #[serde(default)]
    pub asked: Option<StopRequest>,
    /// Set by an end.
    #[serde(default)]
    pub exit: Option<Exit>,
    /// Its `poststop` hooks have run.
    #[serde(default)]
    pub poststop_done: bool,
    /// Its writable layer was mounted volatile before the node restarted: writes may be lost.
    #[serde(default)]
    pub unsynced: bool,
    /// What runs, from the request and the image.
    #[serde(default)]
    pub launch: Launch,
    /// The image's layer folders, topmost first.
    #[serde(default)]
    pub lowers: Vec<PathBuf>,
    /// What its CDI devices change.
    #[serde(default)]
    pub edits: Edits,
    /// Layer folders of each image that is mounted, by its id.
    #[serde(default)]
    pub mounted_images: BTreeMap<String, Vec<PathBuf>>,
}

impl ContainerRecord {
    /// The limits that were asked for with the overlays on top.
    #[must_use]
    pub fn resources(&self) -> Resources {
        compose(&self.config.resources, &self.overlays)
    }

    /// The configuration with the overlays of its limits and the edits of CDI devices on top.
    pub(crate) fn effective(&self) -> ContainerConfig {
        let mut config = self.config.clone();
        config.resources = self.resources();
        self.edits.apply(&mut config);
        config
    }

    /// Derived from what was recorded.
    #[must_use]
    pub fn state(&self) -> ContainerState {
        match (&self.started, &self.exit) {
            (_, Some(_)) => ContainerState::Exited,
            (Some(_), None) => ContainerState::Running,
            (None, None) => ContainerState::Created,
        }
    }
}
