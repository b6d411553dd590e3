//! A node whose daemon passes failpoints, with a container that nothing may touch.

use std::collections::BTreeSet;

use joey_failpoint::Board;
use joey_proto::cri::*;
use joey_tests::{Bystander, Client, Footprint, Setup, Stand, bind, stored};

/// The daemon and the container beside.
#[derive(Debug)]
pub struct Node {
    pub stand: Stand,
    pub board: Board,
    pub runs: tempfile::TempDir,
    bystander: Bystander,
    before: (Footprint, BTreeSet<String>),
}

impl Node {
    pub async fn start(setup: &Setup) -> Self {
        let setup = Setup {
            failpoints: true,
            ..setup.clone()
        };
        let stand = Stand::start_as(&setup).await;
        let board = stand.daemon.board();
        let bystander = Bystander::start(&stand).await;
        let before = footprint(&stand);
        Self {
            stand,
            board,
            runs: tempfile::tempdir().unwrap(),
            bystander,
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

    /// A new daemon after one that has ended.
    pub async fn restart_after_end(&mut self) {
        self.stand.daemon.restart().await;
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

    pub async fn assert_bystander(&self) {
        self.bystander.assert_untouched(&self.stand).await;
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
        pods.retain(|pod| pod.id != self.bystander.pod);
        pods
    }

    pub async fn containers(&self) -> Vec<Container> {
        let mut runtime = self.client().runtime();
        let listed = runtime.list_containers(ListContainersRequest::default());
        let mut containers = listed.await.unwrap().into_inner().containers;
        containers.retain(|container| container.pod_sandbox_id != self.bystander.pod);
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

fn footprint(stand: &Stand) -> (Footprint, BTreeSet<String>) {
    (Footprint::of(&stand.daemon), stored(&stand.daemon))
}
