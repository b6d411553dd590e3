//! Hooks for after a container's end. libcontainer runs those before its start, and at it.
//!
//! Source: <https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config.md#posix-platform-hooks>.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::cdi::Hook;
use crate::error::chain;
use crate::model::{Cause, ContainerRecord};
use crate::objects::Container;
use crate::runtime::Runtime;

/// Of a hook that has none of its own.
const TIME_OUT: Duration = Duration::from_secs(30);
/// From SIGKILL to the hook's end.
const KILL_GRACE: Duration = Duration::from_secs(1);

/// Why a hook did not do its work.
#[derive(Debug, thiserror::Error)]
enum HookError {
    #[error("run it")]
    Run(#[source] std::io::Error),
    #[error("it ended with {0}")]
    Failed(ExitStatus),
    #[error("it was killed after {0:?}")]
    TimedOut(Duration),
}

impl Runtime {
    /// Runs a container's `poststop` hooks in the background, once: neither its removal nor
    /// anything else waits for them.
    pub(crate) fn run_poststop_hooks(self: &Arc<Self>, container: &Arc<Container>) {
        let record = container.record();
        let Some(exit) = &record.exit else { return };
        // What a reboot ended has left nothing for hooks to take back.
        if record.poststop_done || exit.cause == Cause::NodeRebooted {
            return;
        }
        if record.edits.poststop_hooks().next().is_none() {
            return;
        }
        let (runtime, container, ended_at) = (Arc::clone(self), Arc::clone(container), exit.at);
        tokio::spawn(async move {
            run_all(&record, &runtime.state_for_hooks(&record)).await;
            // Unless it was started again meanwhile.
            container.change(|record| {
                record.poststop_done |=
                    record.exit.as_ref().is_some_and(|exit| exit.at == ended_at);
            });
            runtime.save_container_or_warn(&container);
        });
    }

    /// A container's state as hooks read it.
    fn state_for_hooks(&self, record: &ContainerRecord) -> Vec<u8> {
        let state = json!({
            "ociVersion": "1.2.0",
            "id": record.id,
            "status": "stopped",
            "bundle": self.config.bundle(&record.pod_id, &record.id),
            "annotations": record.config.annotations,
        });
        state.to_string().into_bytes()
    }
}

/// In order; one that fails does not keep the next ones from running.
async fn run_all(record: &ContainerRecord, state: &[u8]) {
    for hook in record.edits.poststop_hooks() {
        if let Err(error) = run(hook, state).await {
            let (path, error) = (hook.path.display(), chain(&error));
            tracing::warn!(container = record.id, hook = %path, error, "a poststop hook failed");
        }
    }
}

async fn run(hook: &Hook, state: &[u8]) -> Result<(), HookError> {
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    command
        .env_clear()
        .envs(hook.env.iter().filter_map(|entry| entry.split_once('=')))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    joey_failpoint::hit("hook.exec").map_err(HookError::Run)?;
    let mut child = command.spawn().map_err(HookError::Run)?;
    let group = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    let limit = hook.time_out().unwrap_or(TIME_OUT);
    match tokio::time::timeout(limit, to_its_end(&mut child, state)).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(HookError::Failed(status)),
        Ok(Err(error)) => Err(HookError::Run(error)),
        Err(_) => {
            // Not reaped: the group is still its own. An end in between is fine.
            group.and_then(|group| kill_process_group(group, Signal::KILL).ok());
            drop(tokio::time::timeout(KILL_GRACE, child.wait()).await);
            Err(HookError::TimedOut(limit))
        }
    }
}

async fn to_its_end(child: &mut Child, state: &[u8]) -> std::io::Result<ExitStatus> {
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read it.
        drop(stdin.write_all(state).await);
    }
    child.wait().await
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Instant;

    use super::*;

    fn hook(script: &Path, argument: &str) -> Hook {
        serde_json::from_value(json!({
            "hookName": "poststop",
            "path": script,
            "args": ["hook", argument],
            "env": ["SAYS=hello"],
            "timeout": 1,
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn a_hook_gets_its_arguments_its_environment_and_the_state() {
        let folder = tempfile::tempdir().unwrap();
        let written = folder.path().join("written");
        let script = "echo $0 $SAYS $(env | grep -c PATH=) > $1; cat >> $1";
        let mut hook = hook(Path::new("/bin/sh"), "-c");
        hook.args
            .extend([script, "name", written.to_str().unwrap()].map(str::to_owned));
        run(&hook, b"state").await.unwrap();
        let text = std::fs::read_to_string(written).unwrap();
        assert_eq!(text, "name hello 0\nstate");
    }

    #[tokio::test]
    async fn a_failed_hook_is_told_and_a_late_one_killed_with_its_children() {
        let mut failing = hook(Path::new("/bin/sh"), "-c");
        failing.args.push("exit 3".into());
        let error = run(&failing, b"").await.unwrap_err();
        assert!(error.to_string().contains('3'), "{error}");
        let missing = run(&hook(Path::new("/no/such"), ""), b"").await;
        assert!(matches!(missing, Err(HookError::Run(_))));

        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let mut late = hook(Path::new("/bin/sh"), "-c");
        late.args
            .push(format!("sleep 1000 & echo $! > {}; wait", pid.display()));
        let begun = Instant::now();
        let killed = run(&late, b"").await.unwrap_err();
        assert!(matches!(killed, HookError::TimedOut(_)), "{killed}");
        assert!(begun.elapsed() < Duration::from_secs(5));
        let pid = std::fs::read_to_string(pid).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        // It may stay as a zombie of whoever reaps orphans here.
        let gone = |stat: String| stat.contains(") Z ");
        assert!(std::fs::read_to_string(stat).map_or(true, gone));
    }
}
