//! What a daemon and its pods hold on the node, counted before and after a test.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::Daemon;

/// Everything a test must give back.
#[derive(Debug, PartialEq, Eq)]
pub struct Footprint {
    shims: BTreeSet<i32>,
    mounts: BTreeSet<String>,
    namespaces: BTreeSet<String>,
    links: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    host_ports: String,
    run_files: BTreeSet<String>,
    records: BTreeSet<String>,
}

impl Footprint {
    /// What is there now.
    #[must_use]
    pub fn of(daemon: &Daemon) -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        Self {
            shims: shims(&daemon.state()).into_iter().collect(),
            mounts: mounts
                .lines()
                .filter_map(|line| line.split(' ').nth(4))
                .map(str::to_owned)
                .collect(),
            namespaces: names(Path::new("/run/netns")),
            links: links(),
            cgroups: cgroups(daemon),
            host_ports: nft_elements(),
            run_files: names(&daemon.state().join("pods")),
            records: ["pods", "containers", "writable", "container-logs"]
                .iter()
                .flat_map(|kind| names(&daemon.root().join(kind)))
                .collect(),
        }
    }

    /// Panics unless all is as it was, at most some seconds from now: deletions go on in the
    /// background.
    pub async fn assert_restored(&self, daemon: &Daemon) {
        let mut now = Self::of(daemon);
        for _ in 0..100 {
            if now == *self {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            now = Self::of(daemon);
        }
        assert_eq!(&now, self, "left: now, right: before");
    }
}

fn names(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// A daemon's layers, blobs, leases and unfinished work: what a footprint leaves out, because a test
/// may pull images.
#[must_use]
pub fn stored(daemon: &Daemon) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    let root = daemon.root();
    for folder in [
        "images/images",
        "images/holds",
        "images/content/blobs/sha256",
        "images/layers",
        "images/trash",
        "network/leases",
        "network/cni",
        "trash",
    ] {
        files.extend(names(&root.join(folder)));
    }
    // Of the CNI plugin host-local: addresses, and what it remembers.
    let addresses = names(&root.join("network/ipam/test")).into_iter();
    files.extend(addresses.filter(|name| name.starts_with(|c: char| c.is_ascii_digit())));
    // Each start of the daemon has a folder of its own there.
    let staging = root.join("images/staging");
    for session in names(&staging) {
        files.extend(names(&staging.join(session)));
    }
    files
}

/// Interfaces of this process's network namespace: `/sys` may show another one's.
fn links() -> BTreeSet<String> {
    std::fs::read_to_string("/proc/self/net/dev")
        .unwrap()
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim().to_owned())
        .filter(|name| name != "joey0")
        .collect()
}

/// The shims whose run folder is below `state`.
#[must_use]
pub fn shims(state: &Path) -> Vec<i32> {
    let state = state.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for name in names(Path::new("/proc")) {
        let Ok(pid) = name.parse::<i32>() else {
            continue;
        };
        let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else {
            continue;
        };
        let line = String::from_utf8_lossy(&line);
        if line.starts_with("joey-") && line.contains(&state) {
            found.push(pid);
        }
    }
    found
}

/// Groups with a pod's or container's 64-digit id in their names; beneath the daemon's own parent,
/// where it has one.
fn cgroups(daemon: &Daemon) -> BTreeSet<String> {
    let own = daemon.folder().join("conf.d").exists();
    let name = daemon.folder().file_name().unwrap().to_string_lossy();
    let mut found = BTreeSet::new();
    let mut folders = vec![Path::new("/sys/fs/cgroup").to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let path = entry.path().to_string_lossy().into_owned();
            let digits = entry
                .file_name()
                .to_string_lossy()
                .chars()
                .filter(char::is_ascii_hexdigit)
                .count();
            if digits >= 64 && (!own || path.contains(&*name)) {
                found.insert(path);
            }
            folders.push(entry.path());
        }
    }
    found
}

/// The elements of Joey's nftables maps and sets.
fn nft_elements() -> String {
    let listed = Command::new("nft")
        .args(["list", "ruleset"])
        .output()
        .expect("Debian's nftables");
    String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter(|line| line.contains("elements") || line.contains("dnat"))
        .collect::<Vec<_>>()
        .join("\n")
}
