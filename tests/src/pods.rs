//! Short ways to ask for what pods and containers can have.

use std::path::Path;

use joey_proto::cri::*;

use crate::{Daemon, ImageBuilder, Stand, busybox, container_spec};

/// The security context of a pod.
pub fn pod_security(config: &mut PodSandboxConfig) -> &mut LinuxSandboxSecurityContext {
    let linux = config.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default()
}

/// The security context of a container.
pub fn security(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    let linux = config.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default()
}

/// The namespaces of a container.
pub fn namespaces(config: &mut ContainerConfig) -> &mut NamespaceOption {
    security(config).namespace_options.get_or_insert_default()
}

/// A bind mount of a host path.
#[must_use]
pub fn bind(host: &Path, container: &str) -> Mount {
    Mount {
        host_path: host.to_string_lossy().into_owned(),
        container_path: container.into(),
        ..Default::default()
    }
}

impl Stand {
    /// Makes and pulls busybox with changes; its id.
    pub async fn image(
        &self,
        name: &str,
        change: impl FnOnce(&mut ImageBuilder) -> &mut ImageBuilder,
    ) -> String {
        let mut image = busybox();
        change(&mut image);
        let repository = format!("test/{name}");
        let name = self.registry.push(&repository, "latest", image).await;
        self.client.pull(&name).await
    }

    /// A container that runs busybox.
    #[must_use]
    pub fn container(&self, name: &str, command: &[&str]) -> ContainerConfig {
        container_spec(name, &self.image, command)
    }

    /// A container that stays until it is killed.
    #[must_use]
    pub fn sleeper(&self, name: &str) -> ContainerConfig {
        self.container(name, &["sleep", "1000"])
    }

    /// Runs a container to its end: what it wrote, without the log format, and its exit code.
    pub async fn run_to_end(
        &self,
        pod: &str,
        container: &ContainerConfig,
        config: &PodSandboxConfig,
    ) -> (String, i32) {
        let id = self.client.run(pod, container, config).await;
        let status = self.client.ended(&id).await;
        let log = std::fs::read_to_string(status.log_path).unwrap_or_default();
        let written = log
            .lines()
            .filter_map(|line| line.splitn(4, ' ').nth(3))
            .fold(String::new(), |text, line| text + line + "\n");
        (written, status.exit_code)
    }

    /// Kills the daemon, lets `change` edit its files, and starts it again.
    pub async fn restart_after(&mut self, change: impl FnOnce(&Daemon)) {
        self.daemon.kill();
        change(&self.daemon);
        self.daemon.restart().await;
        self.client = self.daemon.client().await;
    }

    /// What CreateContainer, or else StartContainer, says.
    pub async fn refusal(
        &self,
        pod: &str,
        container: &ContainerConfig,
        config: &PodSandboxConfig,
    ) -> tonic::Status {
        match self.client.create(pod, container, config).await {
            Ok(id) => self.client.start(&id).await.unwrap_err(),
            Err(error) => error,
        }
    }
}
