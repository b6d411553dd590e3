//! Images made on the spot, and registries to pull them from.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod fake;
pub mod registry;

use std::collections::HashSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use joey_image::{Credentials, Digest, Image, ImageConfig, ImageStore, PullError, PullRequest};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

pub fn arch() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "amd64"
    } else {
        "arm64"
    }
}

/// A tar of files; a path ending in `/` is a folder.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, data) in files {
        let mut header = Header::new_gnu();
        header.set_mode(if path.ends_with('/') { 0o755 } else { 0o644 });
        header.set_entry_type(if path.ends_with('/') {
            EntryType::Directory
        } else {
            EntryType::Regular
        });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(data.len() as u64);
        // Not by the setter: it refuses hostile paths.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pack {
    Plain,
    Gzip,
    Zstd,
}

/// A layer: its tar and its blob.
#[derive(Clone)]
pub struct Layer {
    pub diff_id: Digest,
    pub blob: Vec<u8>,
    pub media_type: String,
}

pub fn layer(pack: Pack, files: &[(&str, &[u8])]) -> Layer {
    let tar = tar(files);
    let (blob, suffix) = match pack {
        Pack::Plain => (tar.clone(), ""),
        Pack::Gzip => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&tar).unwrap();
            (gzip.finish().unwrap(), "+gzip")
        }
        Pack::Zstd => (zstd::encode_all(tar.as_slice(), 1).unwrap(), "+zstd"),
    };
    Layer {
        diff_id: Digest::of(&tar),
        blob,
        media_type: format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
    }
}

/// An image: everything a registry needs to hold.
#[derive(Clone)]
pub struct TestImage {
    pub blobs: Vec<Vec<u8>>,
    pub manifest: Vec<u8>,
    pub manifest_type: &'static str,
    pub id: Digest,
}

impl TestImage {
    pub fn new(layers: &[Layer]) -> Self {
        Self::with_config(
            layers,
            json!({"Cmd": ["sh"], "Env": ["A=b"], "User": "1000"}),
        )
    }

    pub fn with_config(layers: &[Layer], config: Value) -> Self {
        let diff_ids: Vec<_> = layers.iter().map(|l| l.diff_id.to_string()).collect();
        let config = serde_json::to_vec(&json!({
            "architecture": arch(), "os": "linux", "created": "2024-05-06T07:08:09Z",
            "config": config, "rootfs": {"type": "layers", "diff_ids": diff_ids}}))
        .unwrap();
        Self::assemble(layers, config, "application/vnd.oci.image.config.v1+json")
    }

    pub fn assemble(layers: &[Layer], config: Vec<u8>, config_type: &str) -> Self {
        let descriptor = |media_type: &str, blob: &[u8]| {
            json!({"mediaType": media_type, "digest": Digest::of(blob).to_string(),
                "size": blob.len()})
        };
        let listed: Vec<_> = layers
            .iter()
            .map(|layer| descriptor(&layer.media_type, &layer.blob))
            .collect();
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": descriptor(config_type, &config), "layers": listed}))
        .unwrap();
        let id = Digest::of(&config);
        let mut blobs: Vec<_> = layers.iter().map(|layer| layer.blob.clone()).collect();
        blobs.push(config);
        Self {
            blobs,
            manifest,
            manifest_type: OCI_MANIFEST,
            id,
        }
    }

    /// The same in Docker's media types.
    pub fn docker(mut self) -> Self {
        let text = String::from_utf8(self.manifest).unwrap();
        self.manifest = text
            .replace(OCI_MANIFEST, DOCKER_MANIFEST)
            .replace(
                "application/vnd.oci.image.config.v1+json",
                "application/vnd.docker.container.image.v1+json",
            )
            .replace(
                "application/vnd.oci.image.layer.v1.tar+gzip",
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
            )
            .into_bytes();
        self.manifest_type = DOCKER_MANIFEST;
        self
    }

    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}

/// Two layers whose content follows from `seed`.
pub fn simple(seed: &str) -> TestImage {
    TestImage::new(&[
        layer(Pack::Gzip, &[("bin/", b""), ("bin/sh", seed.as_bytes())]),
        layer(Pack::Gzip, &[("etc/", b""), ("etc/name", seed.as_bytes())]),
    ])
}

/// An index over manifests, with their platforms.
pub fn index(media_type: &str, entries: &[(&TestImage, &str)]) -> Vec<u8> {
    let manifests: Vec<_> = entries
        .iter()
        .map(|(image, arch)| {
            json!({"mediaType": image.manifest_type, "digest": image.digest().to_string(),
                "size": image.manifest.len(), "platform": {"os": "linux", "architecture": arch}})
        })
        .collect();
    serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": media_type, "manifests": manifests}))
    .unwrap()
}

/// A store in a folder of its own.
pub struct Store {
    pub dir: tempfile::TempDir,
    pub store: Option<Arc<ImageStore>>,
}

impl std::ops::Deref for Store {
    type Target = ImageStore;

    fn deref(&self) -> &ImageStore {
        self.store.as_ref().unwrap()
    }
}

impl Store {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Some(ImageStore::open(Self::config(dir.path())).unwrap());
        Self { dir, store }
    }

    fn config(dir: &Path) -> ImageConfig {
        ImageConfig {
            config_dirs: vec![dir.join("certs.d")],
            progress_timeout: Duration::from_secs(2),
            ..ImageConfig::new(dir.join("store"))
        }
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub fn write_hosts(&self, host: &str, text: &str) {
        let folder = self.dir.path().join("certs.d").join(host);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("hosts.toml"), text).unwrap();
    }

    /// Closes the store and opens it again, as a new daemon would.
    pub async fn reopen(&mut self) {
        self.store = None;
        let opened = eventually("the store is free", || {
            ImageStore::open(Self::config(self.dir.path())).ok()
        });
        self.store = Some(opened.await);
    }

    pub async fn try_pull(
        &self,
        reference: &str,
        auth: Option<Credentials>,
    ) -> Result<Arc<Image>, PullError> {
        let request = PullRequest {
            reference: reference.to_owned(),
            auth,
            progress: None,
        };
        self.pull(request).await
    }

    pub async fn pull_ok(&self, reference: &str) -> Arc<Image> {
        match self.try_pull(reference, None).await {
            Ok(image) => image,
            Err(error) => panic!("{}", chain(&error)),
        }
    }

    /// Names of the folders of layers.
    pub fn layers(&self) -> HashSet<String> {
        names(&self.root().join("layers"))
    }

    /// Waits until nothing but what `layers` says is left, and the usage has followed.
    pub async fn settled_with(&self, layers: usize) {
        eventually("layers are deleted", || {
            let empty = names(&self.root().join("trash")).is_empty();
            (self.layers().len() == layers && empty).then_some(())
        })
        .await;
    }
}

pub fn names(folder: &Path) -> HashSet<String> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// An error with all its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

pub async fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn user(username: &str, password: &str) -> Option<Credentials> {
    Some(Credentials {
        username: username.into(),
        password: password.into(),
        ..Credentials::default()
    })
}
