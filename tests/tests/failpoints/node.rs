//! A node whose daemon passes failpoints, with a container that nothing may touch.

use std::collections::BTreeSet;
use std::path::Path;

use joey_failpoint::Board;
use joey_proto::cri::*;
use joey_tests::{Client, Footprint, Stand, bind};

/// Counts in its log for as long as it lives.
const COUNTER: &str = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.2; done";

/// The daemon and the container beside.
#[derive(Debug)]
pub struct Node {
    pub stand: Stand,
    pub board: Board,
    pub runs: tempfile::TempDir,
    bystander: ContainerStatus,
    process: (i64, u64),
    before: (Footprint, BTreeSet<String>),
}

impl Node {
    pub async fn start() -> Self {
        let (stand, board) = Stand::start_with_failpoints().await;
        let config = stand.pod_config("bystander");
        let pod = stand.client.run_pod(&config).await;
        let container = stand.container("main", &["sh", "-c", COUNTER]);
        let id = stand.client.run(&pod, &container, &config).await;
        let bystander = stand.client.status(&id).await;
        let process = process_of(&stand, &id);
        let before = footprint(&stand);
        Self {
            stand,
            board,
            runs: tempfile::tempdir().unwrap(),
            bystander,
            process,
            before,
        }
    }

    pub fn client(&self) -> &Client {
        &self.stand.client
    }

    /// A new daemon on what a killed one left.
    pub async fn restart(&mut self) {
        self.stand.daemon.kill_and_restart().await;
        self.stand.client = self.stand.daemon.client().await;
    }

    /// A container of `name` that notes each start of it in a file, and ends with 7 on SIGTERM.
    pub fn worker(&self, name: &str) -> ContainerConfig {
        let script = format!(
            "echo run >> /runs/{name}; echo begin; trap 'echo end; exit 7' TERM; sleep 1000 & wait"
        );
        let mut config = self.stand.container(name, &["sh", "-c", &script]);
        config.mounts.push(bind(self.runs.path(), "/runs"));
        config
    }

    /// How often a container of [`Node::worker`] ran.
    pub fn times_run(&self, name: &str) -> usize {
        let noted = std::fs::read_to_string(self.runs.path().join(name));
        noted.unwrap_or_default().lines().count()
    }

    /// The other container runs on, the same process, and its log has no gap.
    pub async fn assert_bystander(&self) {
        let now = self.client().status(&self.bystander.id).await;
        assert_eq!(now.state(), ContainerState::ContainerRunning, "bystander");
        assert_eq!(now.started_at, self.bystander.started_at, "bystander");
        assert_eq!(process_of(&self.stand, &now.id), self.process, "bystander");
        let (pid, ticks) = self.process;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("its process");
        let field = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19);
        assert_eq!(field, Some(ticks.to_string().as_str()), "bystander");
        let log = std::fs::read_to_string(&now.log_path).unwrap();
        let complete = log.rsplit_once('\n').map_or("", |(lines, _)| lines);
        for (number, line) in (1..).zip(complete.lines()) {
            let text = line.rsplit(' ').next();
            assert_eq!(text, Some(number.to_string().as_str()), "bystander's log");
        }
    }

    /// Nothing but the bystander is left.
    pub async fn assert_clean(&self) {
        for _ in 0..100 {
            if footprint(&self.stand) == self.before {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        }
        assert_eq!(
            footprint(&self.stand),
            self.before,
            "left: now, right: before"
        );
    }

    pub async fn pods(&self) -> Vec<PodSandbox> {
        let mut runtime = self.client().runtime();
        let listed = runtime.list_pod_sandbox(ListPodSandboxRequest::default());
        let mut pods = listed.await.unwrap().into_inner().items;
        pods.retain(|pod| pod.metadata.as_ref().unwrap().name != "bystander");
        pods
    }

    pub async fn containers(&self) -> Vec<Container> {
        let mut runtime = self.client().runtime();
        let listed = runtime.list_containers(ListContainersRequest::default());
        let mut containers = listed.await.unwrap().into_inner().containers;
        containers.retain(|container| container.id != self.bystander.id);
        containers
    }

    pub async fn remove_all(&self) {
        for pod in self.pods().await {
            self.client().remove_pod(&pod.id).await;
        }
        let logs = self.stand.log("subject", "any");
        for folder in [Some(self.runs.path()), logs.parent()]
            .into_iter()
            .flatten()
        {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
    }

    /// Whether an image of this name is in the list.
    pub async fn has_image(&self, name: &str) -> bool {
        let mut images = self.client().images();
        let listed = images.list_images(ListImagesRequest::default());
        let listed = listed.await.unwrap().into_inner().images;
        listed
            .iter()
            .any(|image| image.repo_tags.iter().any(|tag| tag == name))
    }
}

/// The pid and the start of a container's init, as recorded.
fn process_of(stand: &Stand, id: &str) -> (i64, u64) {
    let path = stand
        .daemon
        .root()
        .join("containers")
        .join(format!("{id}.json"));
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let started = &record["started"];
    (
        started["pid"].as_i64().unwrap(),
        started["start_ticks"].as_u64().unwrap(),
    )
}

/// What the node holds, and the store's layers, blobs and unfinished work.
fn footprint(stand: &Stand) -> (Footprint, BTreeSet<String>) {
    let mut files = BTreeSet::new();
    let root = stand.daemon.root();
    for folder in [
        "images/images",
        "images/holds",
        "images/content/blobs/sha256",
        "images/layers",
        "trash",
    ] {
        files.extend(names(&root.join(folder)));
    }
    files.extend(names(&root.join("images/trash")));
    files.extend(names(&root.join("network/leases")));
    // Each start of the daemon has a folder of its own there.
    for session in names(&root.join("images/staging")) {
        files.extend(names(Path::new(&session)));
    }
    (Footprint::of(&stand.daemon), files)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path().display().to_string())
        .collect()
}
