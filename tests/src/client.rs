//! A CRI client.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use joey_proto::cri::image_service_client::ImageServiceClient;
use joey_proto::cri::runtime_service_client::RuntimeServiceClient;
use joey_proto::cri::*;
use tonic::transport::{Channel, Endpoint};

const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// A connection to a CRI socket, Joey's or another runtime's.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
}

/// A pod of its own network, with logs in `logs`.
#[must_use]
pub fn pod_config(name: &str, logs: &Path) -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.into(),
            uid: format!("uid-{name}"),
            namespace: "test".into(),
            attempt: 0,
        }),
        hostname: name.into(),
        log_directory: logs.to_string_lossy().into_owned(),
        linux: Some(LinuxPodSandboxConfig {
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(NamespaceOption {
                    pid: NamespaceMode::Container.into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A container that runs `command`.
#[must_use]
pub fn container_spec(name: &str, image: &str, command: &[&str]) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: name.into(),
            attempt: 0,
        }),
        image: Some(ImageSpec {
            image: image.into(),
            ..Default::default()
        }),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        log_path: format!("{name}.log"),
        linux: Some(LinuxContainerConfig {
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(NamespaceOption {
                    pid: NamespaceMode::Container.into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

impl Client {
    /// The connection itself.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Connects or panics.
    pub async fn connect(socket: &Path) -> Self {
        Self::try_connect(socket)
            .await
            .expect("the runtime's socket")
    }

    /// Connects where somebody listens.
    pub async fn try_connect(socket: &Path) -> Option<Self> {
        let socket: PathBuf = socket.to_owned();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move {
                tokio::net::UnixStream::connect(socket)
                    .await
                    .map(TokioIo::new)
            }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        endpoint
            .connect_with_connector(connector)
            .await
            .ok()
            .map(|channel| Self { channel })
    }

    /// The RuntimeService.
    #[must_use]
    pub fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The ImageService.
    #[must_use]
    pub fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Pulls an image.
    pub async fn pull(&self, image: &str) -> String {
        let request = PullImageRequest {
            image: Some(ImageSpec {
                image: image.into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        self.images()
            .pull_image(request)
            .await
            .unwrap()
            .into_inner()
            .image_ref
    }

    /// Runs a pod.
    pub async fn run_pod(&self, config: &PodSandboxConfig) -> String {
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
            ..Default::default()
        };
        self.runtime()
            .run_pod_sandbox(request)
            .await
            .unwrap()
            .into_inner()
            .pod_sandbox_id
    }

    /// Creates a container.
    pub async fn create(
        &self,
        pod: &str,
        config: &ContainerConfig,
        pod_config: &PodSandboxConfig,
    ) -> Result<String, tonic::Status> {
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.into(),
            config: Some(config.clone()),
            sandbox_config: Some(pod_config.clone()),
        };
        Ok(self
            .runtime()
            .create_container(request)
            .await?
            .into_inner()
            .container_id)
    }

    /// Starts a container.
    pub async fn start(&self, id: &str) -> Result<(), tonic::Status> {
        let request = StartContainerRequest {
            container_id: id.into(),
        };
        self.runtime().start_container(request).await.map(drop)
    }

    /// Creates and starts a container, or panics.
    pub async fn run(
        &self,
        pod: &str,
        config: &ContainerConfig,
        pod_config: &PodSandboxConfig,
    ) -> String {
        let id = self.create(pod, config, pod_config).await.unwrap();
        self.start(&id).await.unwrap();
        id
    }

    /// A container's status.
    pub async fn status(&self, id: &str) -> ContainerStatus {
        let request = ContainerStatusRequest {
            container_id: id.into(),
            verbose: false,
        };
        self.runtime()
            .container_status(request)
            .await
            .unwrap()
            .into_inner()
            .status
            .unwrap()
    }

    /// The JSON of a container's verbose status.
    pub async fn info(&self, id: &str) -> serde_json::Value {
        let request = ContainerStatusRequest {
            container_id: id.into(),
            verbose: true,
        };
        let reply = self.runtime().container_status(request).await.unwrap();
        serde_json::from_str(&reply.into_inner().info["info"]).unwrap()
    }

    /// Waits for a container's end and returns its status.
    pub async fn ended(&self, id: &str) -> ContainerStatus {
        for _ in 0..600 {
            let status = self.status(id).await;
            if status.state() == ContainerState::ContainerExited {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("container {id} does not end");
    }

    /// Runs a command in a container: standard output, standard error, exit code.
    pub async fn exec(&self, id: &str, command: &[&str]) -> (String, String, i32) {
        let request = ExecSyncRequest {
            container_id: id.into(),
            cmd: command.iter().map(|word| (*word).to_owned()).collect(),
            timeout: 30,
        };
        let reply = self
            .runtime()
            .exec_sync(request)
            .await
            .unwrap()
            .into_inner();
        (
            String::from_utf8_lossy(&reply.stdout).into_owned(),
            String::from_utf8_lossy(&reply.stderr).into_owned(),
            reply.exit_code,
        )
    }

    /// Stops a container.
    pub async fn stop(&self, id: &str, timeout: i64) {
        let request = StopContainerRequest {
            container_id: id.into(),
            timeout,
        };
        self.runtime().stop_container(request).await.unwrap();
    }

    /// Removes a container.
    pub async fn remove(&self, id: &str) {
        let request = RemoveContainerRequest {
            container_id: id.into(),
        };
        self.runtime().remove_container(request).await.unwrap();
    }

    /// Stops and removes a pod.
    pub async fn remove_pod(&self, id: &str) {
        let mut runtime = self.runtime();
        let stop = StopPodSandboxRequest {
            pod_sandbox_id: id.into(),
        };
        runtime.stop_pod_sandbox(stop).await.unwrap();
        let remove = RemovePodSandboxRequest {
            pod_sandbox_id: id.into(),
        };
        runtime.remove_pod_sandbox(remove).await.unwrap();
    }
}
