//! AppArmor: the default profile of containers, and which profiles the kernel has.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The profile of containers that ask for the runtime's default.
pub(crate) const DEFAULT_PROFILE: &str = "joey-default";

/// Containers may do what their capabilities allow, but not write kernel settings, mount, or reach
/// outside processes.
const DEFAULT_POLICY: &str = "#include <tunables/global>

profile joey-default flags=(attach_disconnected,mediate_deleted) {
  #include <abstractions/base>
  network,
  capability,
  file,
  umount,
  signal (receive) peer=unconfined,
  signal (send,receive) peer=joey-default,
  ptrace (trace,read,tracedby,readby) peer=joey-default,

  deny @{PROC}/* w,
  deny @{PROC}/{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9]*}/** w,
  deny @{PROC}/sys/[^k]** w,
  deny @{PROC}/sys/kernel/{?,??,[^s][^h][^m]**} w,
  deny @{PROC}/sysrq-trigger rwklx,
  deny @{PROC}/mem rwklx,
  deny @{PROC}/kmem rwklx,
  deny @{PROC}/kcore rwklx,

  deny mount,

  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
";

/// Whether the kernel has a profile of this name.
pub(crate) fn is_loaded(name: &str) -> bool {
    std::fs::read_to_string("/sys/kernel/security/apparmor/profiles").is_ok_and(|profiles| {
        profiles.lines().any(|line| {
            line.rsplit_once(" (")
                .is_some_and(|(known, _)| known == name)
        })
    })
}

/// Loads the default profile. Without it RuntimeDefault is unconfined, and the log says so.
pub(crate) async fn load_default() {
    if is_loaded(DEFAULT_PROFILE) {
        return;
    }
    if let Err(error) = load(DEFAULT_POLICY).await {
        tracing::warn!(%error, profile = DEFAULT_PROFILE, "the AppArmor profile can't be loaded");
    }
}

async fn load(policy: &str) -> std::io::Result<()> {
    let mut parser = Command::new("apparmor_parser")
        .args(["--replace", "--skip-cache"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = parser.stdin.take() {
        stdin.write_all(policy.as_bytes()).await?;
    }
    let output = parser.wait_with_output().await?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(std::io::Error::other(format!(
        "apparmor_parser: {}",
        said.trim()
    )))
}
