//! A real registry: the `docker-registry` binary on a loopback port.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use joey_image::Digest;
use reqwest::header::CONTENT_TYPE;

use super::{TestImage, eventually};

pub struct Registry {
    child: Child,
    pub address: String,
    scheme: &'static str,
    login: Option<(&'static str, &'static str)>,
    client: reqwest::Client,
    _dir: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A file of the test authority, whose key is thrown away.
pub fn tls_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/common/tls")
        .join(name)
}

/// bcrypt of "s3cret".
const HTPASSWD: &str = "joe:$2b$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n";

impl Registry {
    pub async fn start() -> Self {
        Self::start_with(None, false).await
    }

    /// Speaks TLS with a certificate of the test authority, and wants one of it.
    pub async fn start_tls() -> Self {
        Self::start_with(None, true).await
    }

    /// Lets in nobody but `joe` with the password `s3cret`.
    pub async fn start_locked() -> Self {
        Self::start_with(Some(("joe", "s3cret")), false).await
    }

    async fn start_with(login: Option<(&'static str, &'static str)>, tls: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            free.local_addr().unwrap().to_string()
        };
        let mut config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: {address}\n",
            dir.path().join("data").display()
        );
        if tls {
            let at = |name| tls_file(name).display().to_string();
            config += &format!(
                "  tls:\n    certificate: {}\n    key: {}\n    clientcas:\n      - {}\n",
                at("server.pem"),
                at("server.key"),
                at("ca.pem")
            );
        }
        if login.is_some() {
            let htpasswd = dir.path().join("htpasswd");
            std::fs::write(&htpasswd, HTPASSWD).unwrap();
            config += &format!(
                "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
                htpasswd.display()
            );
        }
        let path = dir.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        eventually("the registry listens", || {
            std::net::TcpStream::connect(&address).ok()
        })
        .await;
        drop(rustls::crypto::ring::default_provider().install_default());
        let read = |name| std::fs::read(tls_file(name)).unwrap();
        let identity = [read("client.pem"), read("client.key")].concat();
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(20))
            .tls_certs_only([reqwest::Certificate::from_pem(&read("ca.pem")).unwrap()])
            .identity(reqwest::Identity::from_pem(&identity).unwrap())
            .build()
            .unwrap();
        Self {
            child,
            address,
            scheme: if tls { "https" } else { "http" },
            login,
            client,
            _dir: dir,
        }
    }

    fn request(&self, method: reqwest::Method, url: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, url);
        match self.login {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        }
    }

    pub async fn push_blob(&self, repository: &str, blob: &[u8]) {
        let url = format!(
            "{}://{}/v2/{repository}/blobs/uploads/",
            self.scheme, self.address
        );
        let started = self
            .request(reqwest::Method::POST, &url)
            .send()
            .await
            .unwrap();
        assert_eq!(started.status(), 202);
        let location = started.headers()["location"].to_str().unwrap().to_owned();
        let mut url = reqwest::Url::parse(&location).unwrap();
        url.query_pairs_mut()
            .append_pair("digest", &Digest::of(blob).to_string());
        let done = self
            .request(reqwest::Method::PUT, url.as_str())
            .body(blob.to_vec())
            .send()
            .await
            .unwrap();
        assert_eq!(done.status(), 201);
    }

    pub async fn push_manifest(&self, repository: &str, tag: &str, body: &[u8], kind: &str) {
        let url = format!(
            "{}://{}/v2/{repository}/manifests/{tag}",
            self.scheme, self.address
        );
        let done = self
            .request(reqwest::Method::PUT, &url)
            .header(CONTENT_TYPE, kind)
            .body(body.to_vec())
            .send()
            .await
            .unwrap();
        let status = done.status();
        assert_eq!(status, 201, "{}", done.text().await.unwrap());
    }

    /// Pushes an image; returns its reference.
    pub async fn push(&self, repository: &str, tag: &str, image: &TestImage) -> String {
        for blob in &image.blobs {
            self.push_blob(repository, blob).await;
        }
        self.push_manifest(repository, tag, &image.manifest, image.manifest_type)
            .await;
        format!("{}/{repository}:{tag}", self.address)
    }
}
