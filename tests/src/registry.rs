//! Debian's docker-registry on a loopback port.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use crate::image::{Blob, ImageBuilder};

/// The user and the password of a private registry.
pub const CREDENTIALS: (&str, &str) = ("alice", "secret");
/// A line of its user file: bcrypt of the password.
const USERS: &str = "alice:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// A running registry; ended when dropped.
#[derive(Debug)]
pub struct Registry {
    process: Child,
    _storage: tempfile::TempDir,
    address: String,
    http: reqwest::Client,
    private: bool,
}

impl Registry {
    /// Starts an empty registry.
    pub async fn start() -> Self {
        Self::start_as(false).await
    }

    /// Starts an empty registry that asks for [`CREDENTIALS`].
    pub async fn start_private() -> Self {
        Self::start_as(true).await
    }

    async fn start_as(private: bool) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = format!("127.0.0.1:{port}");
        let storage = tempfile::tempdir().unwrap();
        let config = storage.path().join("config.yml");
        let folder = storage.path().join("data");
        let users = storage.path().join("users");
        std::fs::write(&users, USERS).unwrap();
        let auth = if private {
            format!(
                "auth:\n  htpasswd: {{realm: test, path: {}}}\n",
                users.display()
            )
        } else {
            String::new()
        };
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete: {{enabled: true}}\nhttp:\n  addr: {address}\n{auth}",
                folder.display()
            ),
        )
        .unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian's docker-registry");
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let registry = Self {
            process,
            _storage: storage,
            address,
            http,
            private,
        };
        for _ in 0..200 {
            if registry.http.get(registry.url("")).send().await.is_ok() {
                return registry;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the registry does not answer");
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/v2/{path}", self.address)
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.private {
            // alice:secret
            let value = HeaderValue::from_static("Basic YWxpY2U6c2VjcmV0");
            headers.insert(AUTHORIZATION, value);
        }
        headers
    }

    /// The full name of an image in this registry.
    #[must_use]
    pub fn name(&self, repository: &str) -> String {
        format!("{}/{repository}", self.address)
    }

    /// Pushes an image and returns its full name, `HOST:PORT/REPOSITORY:TAG`.
    pub async fn push(&self, repository: &str, tag: &str, image: ImageBuilder) -> String {
        let (layer, config, manifest) = image.build();
        for blob in [&layer, &config] {
            self.push_blob(repository, blob).await;
        }
        let pushed = self
            .http
            .put(self.url(&format!("{repository}/manifests/{tag}")))
            .headers(self.headers())
            .header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
            .body(manifest.bytes)
            .send()
            .await
            .unwrap();
        assert!(
            pushed.status().is_success(),
            "{}",
            pushed.text().await.unwrap()
        );
        format!("{}/{repository}:{tag}", self.address)
    }

    async fn push_blob(&self, repository: &str, blob: &Blob) {
        let begun = self
            .http
            .post(self.url(&format!("{repository}/blobs/uploads/")))
            .headers(self.headers())
            .send()
            .await
            .unwrap();
        let location = begun.headers()["Location"].to_str().unwrap().to_owned();
        let joint = if location.contains('?') { '&' } else { '?' };
        let pushed = self
            .http
            .put(format!("{location}{joint}digest={}", blob.digest))
            .headers(self.headers())
            .body(blob.bytes.clone())
            .send()
            .await
            .unwrap();
        assert!(
            pushed.status().is_success(),
            "{}",
            pushed.text().await.unwrap()
        );
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
