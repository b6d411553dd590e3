//! A daemon with one image, and what goes with it.

use std::path::PathBuf;

use joey_proto::cri::PodSandboxConfig;

use crate::{Client, Daemon, Footprint, Registry, Setup, busybox, pod_config};

/// A node whose daemon holds busybox.
#[derive(Debug)]
pub struct Stand {
    /// Where the image came from.
    pub registry: Registry,
    /// The daemon.
    pub daemon: Daemon,
    /// Its CRI client.
    pub client: Client,
    /// The image's id.
    pub image: String,
    /// The image's name.
    pub image_name: String,
    before: Footprint,
    logs: tempfile::TempDir,
}

impl Stand {
    /// Starts a registry and a daemon and pulls the image.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// The same with a configuration.
    pub async fn start_with(toml: &str) -> Self {
        Self::start_on(Daemon::start_with(toml).await).await
    }

    /// The same with a daemon of a kind.
    pub async fn start_as(setup: &Setup) -> Self {
        Self::start_on(Daemon::start_as(setup).await).await
    }

    async fn start_on(daemon: Daemon) -> Self {
        let registry = Registry::start().await;
        let image_name = registry.push("test/busybox", "latest", busybox()).await;
        let client = daemon.client().await;
        let image = client.pull(&image_name).await;
        let before = Footprint::of(&daemon);
        let logs = tempfile::tempdir().unwrap();
        Self {
            registry,
            daemon,
            client,
            image,
            image_name,
            before,
            logs,
        }
    }

    /// A pod whose logs are in [`Stand::log`]'s folder.
    #[must_use]
    pub fn pod_config(&self, name: &str) -> PodSandboxConfig {
        pod_config(name, &self.logs.path().join(name))
    }

    /// The log of a pod's container.
    #[must_use]
    pub fn log(&self, pod: &str, container: &str) -> PathBuf {
        self.logs.path().join(pod).join(format!("{container}.log"))
    }

    /// Panics unless everything that was made since the start is gone.
    pub async fn assert_clean(&self) {
        self.before.assert_restored(&self.daemon).await;
    }
}
