//! How and why a container ended.

use serde::{Deserialize, Serialize};

/// Why a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum Cause {
    /// By itself.
    #[default]
    Exit,
    /// By a signal.
    Signal(i32),
    /// By the kernel, for memory.
    OutOfMemory,
    /// It never started.
    StartFailed(String),
    /// Its pod's shim ended.
    ShimLost,
    /// The node restarted.
    NodeRebooted,
}

/// Who asks a container to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Actor {
    /// A client of the CRI.
    Kubelet,
    /// The `joey` command.
    User,
}

/// A signal that Joey was asked to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRequest {
    /// Who asked.
    pub by: Actor,
    /// The last one sent for it.
    pub signal: i32,
    /// ns since the epoch: when it was sent.
    pub at: i64,
}

/// Whose memory ran out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum OomGroup {
    /// The container's own, or one that it made beneath.
    Container,
    /// Its pod's.
    Pod,
    /// One above the pod: a QoS class's, all pods'.
    Above,
    /// The node's.
    Node,
    /// The kernel's log does not tell.
    #[default]
    Unknown,
}

/// A process that the kernel killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Victim {
    /// On the host.
    pub pid: i32,
    /// As the kernel knows it: at most 15 bytes.
    pub name: String,
    /// It was the container's init, not a child.
    pub init: bool,
}

/// What the kernel killed in a container for want of memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct OomKill {
    /// Whose memory ran out.
    pub group: OomGroup,
    /// That group's path beneath the hierarchy's root; empty for the node.
    pub path: String,
    /// Who was killed, the first 16 at most.
    pub victims: Vec<Victim>,
    /// Bytes: that group's limit.
    pub limit: Option<u64>,
    /// Bytes: the most that group used.
    pub usage: Option<u64>,
    /// `oom_kill` of the container's group when it was started.
    pub kills_before: u64,
    /// The same at its end.
    pub kills_after: u64,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Exit {
    /// 128 + the signal where one ended it.
    pub code: i32,
    /// ns since the epoch.
    pub at: i64,
    /// Why.
    pub cause: Cause,
    /// OOM kills in its cgroup during its life.
    pub oom_kills: u64,
    /// Who had asked for the end; none where nobody did through Joey.
    pub asked: Option<StopRequest>,
    /// What is known of them where there were any.
    pub oom: Option<OomKill>,
}

impl Exit {
    /// Why, in a sentence for people; empty where it ended by itself unasked.
    #[must_use]
    pub fn reason(&self) -> String {
        let asked = self.asked.as_ref().map(|asked| match asked.by {
            Actor::Kubelet => "asked for by the kubelet",
            Actor::User => "asked for by the user",
        });
        match &self.cause {
            Cause::Exit => asked.unwrap_or_default().to_owned(),
            Cause::Signal(signal) => {
                let sender = asked.unwrap_or("not sent by Joey");
                format!("ended by signal {signal}, {sender}")
            }
            Cause::OutOfMemory => self.out_of_memory(),
            Cause::StartFailed(why) => why.clone(),
            Cause::ShimLost => "the pod's monitor ended".to_owned(),
            Cause::NodeRebooted => "the node was restarted".to_owned(),
        }
    }

    fn out_of_memory(&self) -> String {
        let known = self.oom.clone().unwrap_or_default();
        let whose = match known.group {
            OomGroup::Container | OomGroup::Unknown => "the container's memory limit was reached",
            OomGroup::Pod => "the pod's memory limit was reached",
            OomGroup::Above => "the memory limit of a group above the pod was reached",
            OomGroup::Node => "the node ran out of memory",
        };
        let limit = known
            .limit
            .map(|limit| format!(" ({limit} bytes)"))
            .unwrap_or_default();
        let count = self.oom_kills.max(1);
        let processes = if count == 1 { "process" } else { "processes" };
        let names: Vec<String> = known
            .victims
            .iter()
            .map(|victim| format!("{} {}", victim.name, victim.pid))
            .collect();
        let names = if names.is_empty() {
            String::new()
        } else {
            format!(": {}", names.join(", "))
        };
        format!("{whose}{limit}, {count} {processes} killed{names}")
    }
}
