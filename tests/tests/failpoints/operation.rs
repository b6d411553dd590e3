//! The operations: how each is set up, done, retried and judged.

use joey_proto::cri::*;
use joey_tests::busybox;
use joey_tests::limits::{MIB, in_force};

use crate::node::Node;

/// Of the container's stop. SIGTERM ends it at once, unless the signal is what fails.
const GRACE: i64 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    RunPodSandbox,
    CreateContainer,
    StartContainer,
    StopContainer,
    RemoveContainer,
    StopPodSandbox,
    RemovePodSandbox,
    PullImage,
    RemoveImage,
    ExecSync,
    UpdateContainerResources,
}

/// What an operation is done to.
#[derive(Debug)]
pub struct Scene {
    pub pod_config: PodSandboxConfig,
    pub pod: String,
    pub container: String,
    image: String,
    began: i64,
}

/// Quota, shares and memory of a container without limits.
const BEFORE: (i64, i64, i64) = (-1, 1024, -1);
/// The same after an update.
const UPDATED: (i64, i64, i64) = (20_000, 512, 96 * MIB);

fn updated(scene: &Scene) -> (i64, i64, i64) {
    let seen = in_force(&scene.container);
    (seen.quota, seen.shares, seen.memory)
}

type Reply = Result<(), tonic::Status>;

impl Operation {
    pub const ALL: [Self; 11] = [
        Self::RunPodSandbox,
        Self::CreateContainer,
        Self::StartContainer,
        Self::StopContainer,
        Self::RemoveContainer,
        Self::StopPodSandbox,
        Self::RemovePodSandbox,
        Self::PullImage,
        Self::RemoveImage,
        Self::ExecSync,
        Self::UpdateContainerResources,
    ];

    /// It may fail on a full disk.
    pub fn needs_space(self) -> bool {
        self.makes_something()
            || matches!(self, Self::StartContainer | Self::UpdateContainerResources)
    }

    /// An operation about an image has no pod.
    fn has_pod(self) -> bool {
        !matches!(
            self,
            Self::RunPodSandbox | Self::PullImage | Self::RemoveImage
        )
    }

    fn runs_container(self) -> bool {
        self.has_pod() && !matches!(self, Self::CreateContainer | Self::StartContainer)
    }

    /// After an error nothing of what was asked for is left.
    pub fn makes_something(self) -> bool {
        matches!(
            self,
            Self::RunPodSandbox | Self::CreateContainer | Self::PullImage
        )
    }

    pub async fn prepare(self, node: &Node) -> Scene {
        let mut pod_config = node.stand.pod_config("subject");
        pod_config.port_mappings.push(PortMapping {
            container_port: 80,
            host_port: 18_080,
            ..Default::default()
        });
        let mut scene = Scene {
            pod_config,
            pod: String::new(),
            container: String::new(),
            image: String::new(),
            began: now(),
        };
        let client = node.client();
        if self.has_pod() {
            scene.pod = client.run_pod(&scene.pod_config).await;
            if self != Self::CreateContainer {
                scene.container = create(node, &scene, 0).await.unwrap();
            }
            if self.runs_container() {
                client.start(&scene.container).await.unwrap();
                ran(node, "worker-0").await;
            }
            if self == Self::RemovePodSandbox {
                stop_pod(node, &scene).await.unwrap();
            }
        }
        if matches!(self, Self::PullImage | Self::RemoveImage) {
            let mut image = busybox();
            image.file("other", 0o644, b"another layer");
            scene.image = node
                .stand
                .registry
                .push("test/other", "latest", image)
                .await;
        }
        if self == Self::RemoveImage {
            client.pull(&scene.image).await;
        }
        scene
    }

    pub async fn perform(self, node: &Node, scene: &Scene) -> Reply {
        let client = node.client();
        let (mut runtime, mut images) = (client.runtime(), client.images());
        let container_id = scene.container.clone();
        match self {
            Self::RunPodSandbox => {
                let request = RunPodSandboxRequest {
                    config: Some(scene.pod_config.clone()),
                    ..Default::default()
                };
                runtime.run_pod_sandbox(request).await.map(drop)
            }
            Self::CreateContainer => create(node, scene, 0).await.map(drop),
            Self::StartContainer => client.start(&scene.container).await,
            Self::StopContainer => {
                let timeout = GRACE;
                let request = StopContainerRequest {
                    container_id,
                    timeout,
                };
                runtime.stop_container(request).await.map(drop)
            }
            Self::RemoveContainer => {
                let request = RemoveContainerRequest { container_id };
                runtime.remove_container(request).await.map(drop)
            }
            Self::StopPodSandbox => stop_pod(node, scene).await,
            Self::RemovePodSandbox => {
                let pod_sandbox_id = scene.pod.clone();
                let request = RemovePodSandboxRequest { pod_sandbox_id };
                runtime.remove_pod_sandbox(request).await.map(drop)
            }
            Self::PullImage => {
                let request = PullImageRequest {
                    image: Some(image_spec(&scene.image)),
                    ..Default::default()
                };
                images.pull_image(request).await.map(drop)
            }
            Self::RemoveImage => {
                let request = RemoveImageRequest {
                    image: Some(image_spec(&scene.image)),
                };
                images.remove_image(request).await.map(drop)
            }
            Self::ExecSync => {
                let cmd = ["sh", "-c", "echo hi; exit 3"].map(str::to_owned).to_vec();
                let request = ExecSyncRequest {
                    container_id,
                    cmd,
                    timeout: 30,
                };
                let reply = runtime.exec_sync(request).await?.into_inner();
                let told = (reply.stdout.as_slice(), reply.exit_code);
                assert_eq!(told, (&b"hi\n"[..], 3));
                Ok(())
            }
            Self::UpdateContainerResources => {
                let resources = LinuxContainerResources {
                    cpu_quota: UPDATED.0,
                    cpu_shares: UPDATED.1,
                    memory_limit_in_bytes: UPDATED.2,
                    ..Default::default()
                };
                node.stand.update(&container_id, resources).await
            }
        }
    }

    /// Asks again, as a kubelet does: what was started is not started again, and for what failed
    /// to start a new container is made.
    pub async fn retry(self, node: &Node, scene: &mut Scene) {
        if self == Self::StartContainer {
            let status = node.client().status(&scene.container).await;
            match status.state() {
                ContainerState::ContainerRunning => return,
                ContainerState::ContainerCreated => {}
                _ => {
                    assert_ne!(status.message, "", "why it did not start");
                    scene.container = create(node, scene, 1).await.unwrap();
                }
            }
        }
        if self == Self::UpdateContainerResources {
            let seen = updated(scene);
            assert!([BEFORE, UPDATED].contains(&seen), "half done: {seen:?}");
        }
        self.perform(node, scene).await.expect("the retry");
    }

    /// The operation has been done: once, and what is told of it is true. `signalled`: the stop
    /// signal was delivered.
    pub async fn assert_done(self, node: &Node, scene: &Scene, signalled: bool) {
        let (pods, containers) = (node.pods().await, node.containers().await);
        match self {
            Self::RunPodSandbox => {
                assert_eq!(pods.len(), 1, "{pods:?}");
                assert_eq!(pods[0].state(), PodSandboxState::SandboxReady);
            }
            Self::CreateContainer => {
                assert_eq!(containers.len(), 1, "{containers:?}");
                assert_eq!(containers[0].state(), ContainerState::ContainerCreated);
                node.client().start(&containers[0].id).await.unwrap();
                ran(node, "worker-0").await;
            }
            Self::StartContainer | Self::ExecSync => {
                let status = node.client().status(&scene.container).await;
                assert_eq!(status.state(), ContainerState::ContainerRunning);
                let name = &status.metadata.as_ref().unwrap().name;
                ran(node, name).await;
                assert_eq!(node.times_run(name), 1, "it ran once");
                assert_times(&status, scene);
                let echoed = node.client().exec(&scene.container, &["echo", "on"]).await;
                assert_eq!(echoed, ("on\n".into(), String::new(), 0));
            }
            Self::UpdateContainerResources => {
                assert_eq!(updated(scene), UPDATED);
                let told = node.stand.told(&scene.container).await;
                let told = (told.cpu_quota, told.cpu_shares, told.memory_limit_in_bytes);
                assert_eq!(told, UPDATED);
                assert_eq!(node.times_run("worker-0"), 1, "it ran once");
            }
            Self::StopContainer => {
                let status = node.client().status(&scene.container).await;
                let expected: &[i32] = if signalled { &[7] } else { &[7, 137] };
                assert_ended(&status, scene, expected);
                let log = std::fs::read_to_string(&status.log_path).unwrap();
                assert!(log.contains(" stdout F begin\n"), "{log}");
                assert_eq!(
                    log.contains(" stdout F end\n"),
                    status.exit_code == 7,
                    "{status:?}\n{log}"
                );
            }
            Self::RemoveContainer => assert!(containers.is_empty(), "{containers:?}"),
            Self::StopPodSandbox => {
                assert_eq!(pods.len(), 1, "{pods:?}");
                assert_eq!(pods[0].state(), PodSandboxState::SandboxNotready);
                let status = node.client().status(&scene.container).await;
                assert_ended(&status, scene, &[137]);
            }
            Self::RemovePodSandbox => {
                assert!(pods.is_empty() && containers.is_empty(), "{pods:?}");
            }
            Self::PullImage => assert!(node.has_image(&scene.image).await),
            Self::RemoveImage => assert!(!node.has_image(&scene.image).await),
        }
    }

    /// The pod's shim was killed: the pod ended by that, if it is still there.
    pub async fn assert_pod_ended(self, node: &Node, scene: &Scene) {
        joey_tests::eventually("the pod has ended", || async {
            let (pods, containers) = (node.pods().await, node.containers().await);
            pods.iter()
                .all(|pod| pod.state() == PodSandboxState::SandboxNotready)
                && containers
                    .iter()
                    .all(|container| container.state() != ContainerState::ContainerRunning)
        })
        .await;
        for container in node.containers().await {
            let status = node.client().status(&container.id).await;
            if status.state() != ContainerState::ContainerCreated {
                assert_ended(&status, scene, &[7, 128, 137]);
            }
        }
    }

    pub async fn clean(self, node: &Node, scene: &Scene) {
        node.remove_all().await;
        if !scene.image.is_empty() {
            Self::RemoveImage.perform(node, scene).await.unwrap();
        }
    }
}

fn image_spec(image: &str) -> ImageSpec {
    ImageSpec {
        image: image.to_owned(),
        ..Default::default()
    }
}

pub async fn create(node: &Node, scene: &Scene, attempt: u32) -> Result<String, tonic::Status> {
    let config = node.worker(&format!("worker-{attempt}"));
    node.client()
        .create(&scene.pod, &config, &scene.pod_config)
        .await
}

async fn stop_pod(node: &Node, scene: &Scene) -> Reply {
    let request = StopPodSandboxRequest {
        pod_sandbox_id: scene.pod.clone(),
    };
    let mut runtime = node.client().runtime();
    runtime.stop_pod_sandbox(request).await.map(drop)
}

/// Waits until the container has noted its start, which comes right before its trap is set.
pub async fn ran(node: &Node, name: &str) {
    joey_tests::eventually("the container runs", || async { node.times_run(name) > 0 }).await;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
}

fn assert_times(status: &ContainerStatus, scene: &Scene) {
    assert!(scene.began <= status.created_at, "{status:?}");
    assert!(status.created_at <= status.started_at, "{status:?}");
    assert!(status.started_at <= now(), "{status:?}");
}

fn assert_ended(status: &ContainerStatus, scene: &Scene, codes: &[i32]) {
    assert_eq!(
        status.state(),
        ContainerState::ContainerExited,
        "{status:?}"
    );
    assert!(codes.contains(&status.exit_code), "{status:?}");
    assert!(status.finished_at <= now(), "{status:?}");
    assert!(status.finished_at >= status.started_at, "{status:?}");
    if status.started_at > 0 {
        assert_times(status, scene);
    }
}

fn now() -> i64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since.as_nanos()).unwrap()
}
