//! `KillContainer`: one signal to a container's first process.

use std::ops::RangeInclusive;
use std::time::Duration;

use joey_proto::api::{KillContainerRequest, KillContainerResponse};
use joey_runtime::model::{ContainerState, Started};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::State;
use super::status::Failure;

/// How long SIGKILL may take, as docker has it.
const KILL_TIME: Duration = Duration::from_secs(10);
/// SIGRTMIN … SIGRTMAX, as programs see them.
const REAL_TIME: RangeInclusive<i32> = 34..=64;

/// Sends the signal; a container that has ended takes none. After SIGKILL the end is waited for.
pub async fn kill(
    state: &State,
    request: &KillContainerRequest,
) -> Result<KillContainerResponse, Failure> {
    let container = state.find(&request.container)?;
    let signal = signal(request.signal)
        .ok_or_else(|| Failure::Invalid(format!("{} is no signal", request.signal)))?;
    let record = container.record();
    match (&record.started, record.state()) {
        (Some(started), ContainerState::Running) => {
            state.runtime.note_stop(&container, signal.as_raw());
            send(started, signal)?;
        }
        _ => {
            return Err(Failure::WrongState(format!(
                "container {} is not running",
                record.config.name
            )));
        }
    }
    if signal == Signal::KILL {
        let ended = state.runtime.wait_container(container.id());
        // One that is removed meanwhile has ended too.
        if tokio::time::timeout(KILL_TIME, ended).await.is_err() {
            return Err(Failure::WrongState("the container outlives SIGKILL".into()));
        }
    }
    Ok(KillContainerResponse {})
}

/// A named signal, or a real-time one. What is between them the C library keeps to itself.
fn signal(number: u32) -> Option<Signal> {
    let number = i32::try_from(number).ok()?;
    if REAL_TIME.contains(&number) {
        // SAFETY: the kernel has this signal, and the C library does not use it.
        return Some(unsafe { Signal::from_raw_unchecked(number) });
    }
    Signal::from_named_raw(number)
}

fn send(started: &Started, signal: Signal) -> Result<(), Failure> {
    let failed = |error: Errno| Failure::System("send the signal", error.into());
    let Some(pid) = Pid::from_raw(started.pid) else {
        return Ok(());
    };
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        // EINVAL: before 6.14 for a process that is just being reaped.
        Err(Errno::SRCH | Errno::INVAL) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    // The descriptor holds this process, so its start time tells whether it is the container's.
    if start_ticks(started.pid) != Some(started.start_ticks) {
        return Ok(());
    }
    match pidfd_send_signal(&process, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Field 22 of `/proc/PID/stat`.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?
        .1
        .split_ascii_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_those_that_programs_have() {
        for number in (1..=31).chain(34..=64) {
            let found = signal(number).map(Signal::as_raw);
            assert_eq!(found, i32::try_from(number).ok());
        }
        for number in [0, 32, 33, 65, u32::MAX] {
            assert_eq!(signal(number), None);
        }
    }

    #[test]
    fn only_the_process_that_was_started_is_signalled() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let started = |start_ticks| Started {
            pid,
            start_ticks,
            at: 0,
            user: Default::default(),
        };
        let ticks = start_ticks(pid).unwrap();
        send(&started(ticks + 1), Signal::KILL).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        send(&started(ticks), Signal::KILL).unwrap();
        assert!(!child.wait().unwrap().success());
    }
}
