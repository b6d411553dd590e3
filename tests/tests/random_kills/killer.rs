//! Kills the daemon, a shim, or a process that a shim has forked and that is no program yet.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use joey_tests::Daemon;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::node::Node;

/// Between two kills.
const PAUSE_MS: std::ops::Range<u64> = 20..400;
/// How long a dead daemon stays away: long enough for containers to end meanwhile.
const AWAY_MS: std::ops::Range<u64> = 0..300;
/// When a daemon is killed that has just been started.
const AT_START_MS: std::ops::Range<u64> = 0..120;
/// Workers live for milliseconds: how long one is looked for.
const HUNT: Duration = Duration::from_millis(600);

#[derive(Debug)]
pub struct Killer {
    node: Arc<Node>,
    random: Rng,
    daemons: u64,
}

/// A process of a shim.
#[derive(Debug, Clone)]
struct Process {
    pid: Pid,
    pod: String,
}

impl Killer {
    pub fn new(node: Arc<Node>, random: Rng) -> Self {
        Self {
            node,
            random,
            daemons: 0,
        }
    }

    /// Waits for a while and kills something.
    pub async fn kill(&mut self, daemon: &mut Daemon) {
        let pause = Duration::from_millis(self.random.u64(PAUSE_MS));
        tokio::time::sleep(pause).await;
        let done = match self.random.u8(..10) {
            0..2 => self.kill_shim(),
            2..5 => self.kill_worker().await,
            _ => false,
        };
        if !done {
            self.kill_daemon(daemon).await;
        }
    }

    async fn kill_daemon(&mut self, daemon: &mut Daemon) {
        self.node.daemon_goes();
        assert!(!daemon.has_ended(), "joeyd ended by itself");
        daemon.kill();
        self.node.count("daemons killed");
        self.sleep(AWAY_MS).await;
        if self.random.u8(..4) == 0 {
            daemon.begin_restart();
            self.sleep(AT_START_MS).await;
            assert!(!daemon.has_ended(), "joeyd ended at its start");
            daemon.kill();
            self.node.count("of them starting");
        }
        daemon.restart().await;
        self.daemons += 1;
        let client = daemon.client().await;
        self.node.daemon_is_back(self.daemons, client);
    }

    async fn sleep(&mut self, range: std::ops::Range<u64>) {
        let time = Duration::from_millis(self.random.u64(range));
        tokio::time::sleep(time).await;
    }

    /// False where there is none.
    fn kill_shim(&mut self) -> bool {
        let (shims, _) = self.processes();
        let Some(shim) = self.random.choice(&shims) else {
            return false;
        };
        let killed = self.end(shim, true);
        if killed {
            self.node.count("shims killed");
        }
        killed
    }

    async fn kill_worker(&mut self) -> bool {
        let end = Instant::now() + HUNT;
        let after = self.random.usize(..4);
        let mut seen = 0;
        while Instant::now() < end {
            for worker in self.processes().1 {
                seen += 1;
                if seen > after && self.end(&worker, false) {
                    self.node.count("workers killed");
                    return true;
                }
            }
            tokio::task::yield_now().await;
        }
        false
    }

    /// The shims of the load's pods, and what they have forked that is no program yet.
    fn processes(&self) -> (Vec<Process>, Vec<Process>) {
        let found = joey_tests::shims(&self.node.state);
        let read = |pid: &i32| {
            let folder = format!("/proc/{pid}");
            let pod = pod_of(Path::new(&folder)).filter(|pod| *pod != self.node.spared)?;
            let is_shim = !found.contains(&parent(*pid)?);
            let pid = Pid::from_raw(*pid)?;
            Some((is_shim, Process { pid, pod }))
        };
        let (shims, workers): (Vec<_>, Vec<_>) = found
            .iter()
            .filter_map(read)
            .partition(|(is_shim, _)| *is_shim);
        let second = |processes: Vec<(bool, Process)>| processes.into_iter().map(|it| it.1);
        (second(shims).collect(), second(workers).collect())
    }

    /// False where the process is gone, or a program by now.
    fn end(&self, victim: &Process, shim: bool) -> bool {
        let Ok(pidfd) = pidfd_open(victim.pid, PidfdFlags::empty()) else {
            return false;
        };
        let folder = format!("/proc/{}", victim.pid.as_raw_nonzero());
        if pod_of(Path::new(&folder)).as_ref() != Some(&victim.pod) {
            return false;
        }
        self.node.note_hit(&victim.pod, shim);
        pidfd_send_signal(pidfd, Signal::KILL).is_ok()
    }
}

/// The pod in the command line of a shim or its worker.
fn pod_of(process: &Path) -> Option<String> {
    let line = std::fs::read(process.join("cmdline")).ok()?;
    let mut words = line.split(|byte| *byte == 0);
    let is_shim = words.next()? == b"joey-shim";
    let pod = String::from_utf8(words.next()?.to_vec()).ok()?;
    is_shim.then_some(pod)
}

fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}
