//! What fuzzers call: everything that a registry, an image or an operator's file may say.

use std::fmt::Debug;
use std::fs;
use std::path::Path;

use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::auth::Credentials;
use crate::manifest::{self, Document, ImageConfigFile};
use crate::platform::HostPlatform;
use crate::registry::{challenge, hosts};
use crate::store::record::{self, HoldRecord, ImageRecord, LayerRecord};
use crate::unpack::{self, UnpackLimits};

/// A manifest, an index or an image config.
pub fn manifest(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else {
        return;
    };
    let content_type = [
        "",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json; charset=utf-8",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    ][usize::from(kind % 4)];
    let host = HostPlatform::detect();
    if let Ok(document) = manifest::parse(data, content_type)
        && let Document::Index(entries) = &document
        && let Ok(entry) = manifest::select(entries, &host)
    {
        assert!(entries.iter().any(|other| other.digest == entry.digest));
    }
    if let Ok(config) = ImageConfigFile::parse(data) {
        let layers = config.diff_ids.len();
        drop(config.check(layers, &host));
        assert_eq!(manifest::chain_ids(&config.diff_ids).len(), layers);
    }
}

/// A layer's tar, unpacked into `folder`, which is empty. What lies beside the folder must stay as
/// it is: the caller checks that.
pub fn layer(tar: &[u8], folder: &Path) {
    let limits = UnpackLimits {
        bytes: 1 << 20,
        entries: 1000,
        memory: 1 << 20,
    };
    if let Ok(unpacked) = unpack::unpack(tar, folder, &limits) {
        assert!(unpacked.inodes <= limits.entries + 1, "{}", unpacked.inodes);
        drop(unpack::inherit(
            folder,
            &unpacked.implied,
            &[folder.to_owned()],
        ));
    }
}

/// A `hosts.toml`, written into `folder`.
pub fn hosts(toml: &[u8], folder: &Path) {
    let registry = folder.join("registry.example.com");
    if fs::create_dir_all(&registry).is_ok() && fs::write(registry.join("hosts.toml"), toml).is_ok()
    {
        drop(hosts::hosts_for(
            &[folder.to_owned()],
            "registry.example.com",
        ));
    }
}

/// Texts: a reference, an `auth` field, a `WWW-Authenticate` header.
pub fn texts(data: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(data) {
        let mut headers = HeaderMap::new();
        headers.insert(WWW_AUTHENTICATE, value);
        drop(challenge::challenges(&headers));
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(reference) = text.parse::<crate::Reference>() {
        let again = reference.to_string().parse::<crate::Reference>();
        assert_eq!(again.ok(), Some(reference), "of {text:?}");
    }
    let credentials = Credentials {
        auth: text.to_owned(),
        server_address: text.to_owned(),
        ..Credentials::default()
    };
    drop(credentials.secret_for("registry.example.com"));
    let credentials = Credentials {
        server_address: String::new(),
        ..credentials
    };
    drop(credentials.secret_for("registry.example.com"));
}

/// The record of an image, a layer or a hold, as found on a disk.
pub fn record(data: &[u8]) {
    read_again::<ImageRecord>(data);
    read_again::<LayerRecord>(data);
    read_again::<HoldRecord>(data);
}

/// What was read is written so that it is read again.
fn read_again<T: DeserializeOwned + Serialize + PartialEq + Debug>(data: &[u8]) {
    if let Ok(read) = record::parse::<T>(data) {
        let again = record::encode(&read).map(|text| record::parse::<T>(&text).ok());
        assert_eq!(again.ok().flatten(), Some(read));
    }
}
