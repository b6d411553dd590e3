//! A runtime under measurement and its calls, each with the time it took.

use std::path::PathBuf;
use std::time::Instant;

use joey_proto::cri::image_service_client::ImageServiceClient;
use joey_proto::cri::runtime_service_client::RuntimeServiceClient;
use joey_proto::cri::*;
use joey_tests::Client;
use serde::{Deserialize, Serialize};
use tonic::transport::Channel;

use crate::error::BenchError;
use crate::usage::Group;

/// A value and the milliseconds it took to get it.
pub type Timed<T> = Result<(T, f64), BenchError>;

/// Where a runtime is and what belongs to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Its name in the tables.
    pub name: String,
    /// Its CRI socket.
    pub socket: PathBuf,
    /// The daemon's process.
    pub pid: u32,
    /// The control group below the root that holds the daemon, its helpers and, in `pods`, its pods.
    pub group: String,
    /// The folder of its images, containers and records.
    pub data: PathBuf,
    /// A folder for the pods' files: logs and what is mounted. `token` in it is mounted as a
    /// service account's.
    pub folder: PathBuf,
    /// What it was built from, for the record.
    pub version: String,
}

/// A runtime under measurement.
#[derive(Debug)]
pub struct Side {
    /// Where it is.
    pub place: Place,
    /// What it uses.
    pub group: Group,
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

impl Side {
    /// Connects to a runtime.
    pub async fn connect(place: Place) -> Result<Self, BenchError> {
        let client = Client::try_connect(&place.socket).await;
        let client = client.ok_or_else(|| BenchError::Connect {
            side: place.name.clone(),
            socket: place.socket.clone(),
        })?;
        Ok(Self {
            group: Group::named(&place.group),
            runtime: client.runtime(),
            images: client.images(),
            place,
        })
    }

    /// The control group of its pods, as a pod's configuration names it.
    pub fn pods_group(&self) -> String {
        format!("/{}/pods", self.place.group)
    }

    /// An error about what it answered.
    pub fn wrong(&self, what: impl Into<String>) -> BenchError {
        BenchError::Wrong {
            side: self.place.name.clone(),
            what: what.into(),
        }
    }

    async fn timed<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Timed<T> {
        let begun = Instant::now();
        match answer.await {
            Ok(answer) => Ok((answer.into_inner(), begun.elapsed().as_secs_f64() * 1e3)),
            Err(status) => Err(BenchError::Call {
                side: self.place.name.clone(),
                call,
                source: Box::new(status),
            }),
        }
    }

    /// RunPodSandbox; the pod's id.
    pub async fn run_pod(&self, config: &PodSandboxConfig) -> Timed<String> {
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
            ..Default::default()
        };
        let mut runtime = self.runtime.clone();
        let answer = self.timed("RunPodSandbox", runtime.run_pod_sandbox(request));
        answer.await.map(|(reply, ms)| (reply.pod_sandbox_id, ms))
    }

    /// CreateContainer; the container's id.
    pub async fn create(
        &self,
        pod: &str,
        config: &ContainerConfig,
        pod_config: &PodSandboxConfig,
    ) -> Timed<String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.into(),
            config: Some(config.clone()),
            sandbox_config: Some(pod_config.clone()),
        };
        let mut runtime = self.runtime.clone();
        let answer = self.timed("CreateContainer", runtime.create_container(request));
        answer.await.map(|(reply, ms)| (reply.container_id, ms))
    }

    /// StartContainer.
    pub async fn start(&self, id: &str) -> Timed<()> {
        let request = StartContainerRequest {
            container_id: id.into(),
        };
        let mut runtime = self.runtime.clone();
        let answer = self.timed("StartContainer", runtime.start_container(request));
        answer.await.map(|(_, ms)| ((), ms))
    }

    /// StopContainer without a grace period.
    pub async fn stop(&self, id: &str) -> Timed<()> {
        let request = StopContainerRequest {
            container_id: id.into(),
            timeout: 0,
        };
        let mut runtime = self.runtime.clone();
        let answer = self.timed("StopContainer", runtime.stop_container(request));
        answer.await.map(|(_, ms)| ((), ms))
    }

    /// StopPodSandbox.
    pub async fn stop_pod(&self, id: &str) -> Timed<()> {
        let request = StopPodSandboxRequest {
            pod_sandbox_id: id.into(),
        };
        let mut runtime = self.runtime.clone();
        let answer = self.timed("StopPodSandbox", runtime.stop_pod_sandbox(request));
        answer.await.map(|(_, ms)| ((), ms))
    }

    /// RemoveContainer.
    pub async fn remove(&self, id: &str) -> Timed<()> {
        let request = RemoveContainerRequest {
            container_id: id.into(),
        };
        let mut runtime = self.runtime.clone();
        let answer = self.timed("RemoveContainer", runtime.remove_container(request));
        answer.await.map(|(_, ms)| ((), ms))
    }

    /// RemovePodSandbox.
    pub async fn remove_pod(&self, id: &str) -> Timed<()> {
        let request = RemovePodSandboxRequest {
            pod_sandbox_id: id.into(),
        };
        let mut runtime = self.runtime.clone();
        let answer = self.timed("RemovePodSandbox", runtime.remove_pod_sandbox(request));
        answer.await.map(|(_, ms)| ((), ms))
    }

    /// ExecSync of `true`, which must succeed.
    pub async fn exec(&self, id: &str) -> Timed<()> {
        let request = ExecSyncRequest {
            container_id: id.into(),
            cmd: vec!["true".into()],
            timeout: 30,
        };
        let mut runtime = self.runtime.clone();
        let answer = self.timed("ExecSync", runtime.exec_sync(request));
        match answer.await? {
            (reply, ms) if reply.exit_code == 0 => Ok(((), ms)),
            (reply, _) => Err(self.wrong(format!("ExecSync ended with {}", reply.exit_code))),
        }
    }

    /// PodSandboxStatus of a pod that must be ready.
    pub async fn pod_status(&self, id: &str) -> Timed<()> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: id.into(),
            verbose: false,
        };
        let mut runtime = self.runtime.clone();
        let answer = self.timed("PodSandboxStatus", runtime.pod_sandbox_status(request));
        let (reply, ms) = answer.await?;
        let state = reply.status.map(|status| status.state());
        if state == Some(PodSandboxState::SandboxReady) {
            Ok(((), ms))
        } else {
            Err(self.wrong(format!("pod {id} is {state:?}")))
        }
    }

    /// ListPodSandbox; the pods' ids.
    pub async fn list_pods(&self) -> Timed<Vec<String>> {
        let mut runtime = self.runtime.clone();
        let request = ListPodSandboxRequest::default();
        let answer = self.timed("ListPodSandbox", runtime.list_pod_sandbox(request));
        let (reply, ms) = answer.await?;
        Ok((reply.items.into_iter().map(|pod| pod.id).collect(), ms))
    }

    /// ListContainers; the containers that are running.
    pub async fn list_containers(&self) -> Timed<Vec<String>> {
        let mut runtime = self.runtime.clone();
        let request = ListContainersRequest::default();
        let answer = self.timed("ListContainers", runtime.list_containers(request));
        let (reply, ms) = answer.await?;
        let containers = reply.containers.into_iter();
        let running = containers.filter(|one| one.state() == ContainerState::ContainerRunning);
        Ok((running.map(|one| one.id).collect(), ms))
    }

    /// ListContainerStats; how many answers have CPU and memory.
    pub async fn list_stats(&self) -> Timed<usize> {
        let mut runtime = self.runtime.clone();
        let request = ListContainerStatsRequest::default();
        let answer = self.timed("ListContainerStats", runtime.list_container_stats(request));
        let (reply, ms) = answer.await?;
        let full = |one: &&ContainerStats| one.cpu.is_some() && one.memory.is_some();
        Ok((reply.stats.iter().filter(full).count(), ms))
    }

    /// Status.
    pub async fn status(&self) -> Timed<()> {
        let mut runtime = self.runtime.clone();
        let answer = self.timed("Status", runtime.status(StatusRequest::default()));
        answer.await.map(|(_, ms)| ((), ms))
    }

    /// PullImage; the reference to use it by.
    pub async fn pull(&self, image: &str) -> Timed<String> {
        let request = PullImageRequest {
            image: Some(image_spec(image)),
            ..Default::default()
        };
        let mut images = self.images.clone();
        let answer = self.timed("PullImage", images.pull_image(request));
        answer.await.map(|(reply, ms)| (reply.image_ref, ms))
    }

    /// RemoveImage.
    pub async fn remove_image(&self, image: &str) -> Timed<()> {
        let request = RemoveImageRequest {
            image: Some(image_spec(image)),
        };
        let mut images = self.images.clone();
        let answer = self.timed("RemoveImage", images.remove_image(request));
        answer.await.map(|(_, ms)| ((), ms))
    }

    /// ImageFsInfo; the bytes images use.
    pub async fn image_bytes(&self) -> Timed<u64> {
        let mut images = self.images.clone();
        let answer = self.timed("ImageFsInfo", images.image_fs_info(ImageFsInfoRequest {}));
        let (reply, ms) = answer.await?;
        let used = reply.image_filesystems.iter();
        let used = used.filter_map(|system| system.used_bytes.as_ref());
        Ok((used.map(|bytes| bytes.value).sum(), ms))
    }

    /// Fails if a pod or a container is left.
    pub async fn assert_empty(&self) -> Result<(), BenchError> {
        let (pods, _) = self.list_pods().await?;
        let (running, _) = self.list_containers().await?;
        if pods.is_empty() && running.is_empty() {
            return Ok(());
        }
        Err(self.wrong(format!(
            "left behind: pods {pods:?}, containers {running:?}"
        )))
    }

    /// The folder of a pod's files.
    pub fn pod_folder(&self, uid: &str) -> PathBuf {
        self.place.folder.join("bench").join(uid)
    }
}

fn image_spec(image: &str) -> ImageSpec {
    ImageSpec {
        image: image.into(),
        ..Default::default()
    }
}
