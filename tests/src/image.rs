//! Builds small images.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// An image with one gzip layer.
#[allow(missing_debug_implementations, reason = "a tar builder has none")]
pub struct ImageBuilder {
    layer: tar::Builder<Vec<u8>>,
    config: Value,
}

/// A blob and its digest.
#[derive(Debug, Clone)]
pub struct Blob {
    /// `sha256:…`.
    pub digest: String,
    /// Content.
    pub bytes: Vec<u8>,
}

impl Blob {
    /// Hashes `bytes`.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            digest: digest(&bytes),
            bytes,
        }
    }
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// A busybox image as `Debian`'s busybox-static makes it: every applet a link in `/bin`.
#[must_use]
pub fn busybox() -> ImageBuilder {
    let mut image = ImageBuilder::new();
    let binary = std::fs::read("/bin/busybox").expect("Debian's busybox-static");
    image.file("bin/busybox", 0o755, &binary);
    let applets = std::process::Command::new("/bin/busybox")
        .arg("--list")
        .output()
        .unwrap();
    for applet in String::from_utf8(applets.stdout).unwrap().lines() {
        if applet != "busybox" {
            image.hard_link(&format!("bin/{applet}"), "bin/busybox");
        }
    }
    for (folder, mode) in [
        ("etc", 0o755),
        ("tmp", 0o1777),
        ("root", 0o700),
        ("proc", 0o555),
    ] {
        image.folder(folder, mode);
    }
    image.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n",
    );
    image.file(
        "etc/group",
        0o644,
        b"root:x:0:\nalice:x:1000:\nteam:x:2000:alice\n",
    );
    image.config("Env", json!(["PATH=/usr/bin:/bin", "FROM_IMAGE=yes"]));
    image.config("Cmd", json!(["sh"]));
    image
}

impl Default for ImageBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl ImageBuilder {
    /// An empty image.
    #[must_use]
    pub fn new() -> Self {
        Self {
            layer: tar::Builder::new(Vec::new()),
            config: json!({}),
        }
    }

    fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_mtime(1_700_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> &mut Self {
        let mut header = Self::header(tar::EntryType::Regular, mode, bytes.len() as u64);
        self.layer.append_data(&mut header, path, bytes).unwrap();
        self
    }

    /// Adds a folder.
    pub fn folder(&mut self, path: &str, mode: u32) -> &mut Self {
        let mut header = Self::header(tar::EntryType::Directory, mode, 0);
        self.layer
            .append_data(&mut header, path, std::io::empty())
            .unwrap();
        self
    }

    /// Adds a hard link.
    pub fn hard_link(&mut self, path: &str, target: &str) -> &mut Self {
        let mut header = Self::header(tar::EntryType::Link, 0o755, 0);
        self.layer.append_link(&mut header, path, target).unwrap();
        self
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> &mut Self {
        let mut header = Self::header(tar::EntryType::Symlink, 0o777, 0);
        self.layer.append_link(&mut header, path, target).unwrap();
        self
    }

    /// Adds a program of this node under `/bin` with the libraries that it loads.
    pub fn program(&mut self, path: &Path) -> &mut Self {
        let name = path.file_name().unwrap().to_string_lossy();
        let binary = std::fs::read(path).unwrap();
        self.file(&format!("bin/{name}"), 0o755, &binary);
        let listed = std::process::Command::new("ldd")
            .arg(path)
            .output()
            .unwrap();
        for line in String::from_utf8(listed.stdout).unwrap().lines() {
            let word = line.split_whitespace().find(|word| word.starts_with('/'));
            if let Some(library) = word {
                let bytes = std::fs::read(library).unwrap();
                self.file(library.trim_start_matches('/'), 0o755, &bytes);
            }
        }
        self
    }

    /// Sets a field of the image's config (`Env`, `Cmd`, `User` …).
    pub fn config(&mut self, field: &str, value: Value) -> &mut Self {
        self.config[field] = value;
        self
    }

    /// The layer, the config and the manifest that names both.
    #[must_use]
    pub fn build(mut self) -> (Blob, Blob, Blob) {
        self.layer.finish().unwrap();
        let tar = self.layer.into_inner().unwrap();
        let diff_id = digest(&tar);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&tar).unwrap();
        let layer = Blob::new(gzip.finish().unwrap());
        let config = Blob::new(
            serde_json::to_vec(&json!({
                "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
                "os": "linux",
                "created": "2026-01-01T00:00:00Z",
                "config": self.config,
                "rootfs": { "type": "layers", "diff_ids": [diff_id] },
            }))
            .unwrap(),
        );
        let manifest = Blob::new(
            serde_json::to_vec(&json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": config.digest,
                    "size": config.bytes.len(),
                },
                "layers": [{
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": layer.digest,
                    "size": layer.bytes.len(),
                }],
            }))
            .unwrap(),
        );
        (layer, config, manifest)
    }
}
