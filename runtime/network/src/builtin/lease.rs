//! Leases: what a pod holds of the built-in network, one durable file each.
//!
//! A lease is written before anything is made in the kernel, so that a crash in between leaves
//! nothing that can't be found again. A fixed address is flushed to disk; any other need not
//! survive a power cut, as its pod does not either.

use std::fs::{self, File};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::names::link_name;
use crate::types::{Attachment, PortMapping};

const VERSION: u32 = 1;
const MAX_SIZE: u64 = 1024 * 1024;

/// What a pod holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    version: u32,
    pub(crate) pod_id: String,
    pub(crate) pod_uid: String,
    /// The pod's interface on the host.
    pub(crate) link: String,
    pub(crate) mac: String,
    pub(crate) ips: Vec<IpAddr>,
    /// The addresses were asked for.
    pub(crate) fixed: bool,
    pub(crate) ports: Vec<PortMapping>,
    /// The ports are no longer offered: the pod is on its way out.
    #[serde(skip)]
    pub(crate) withdrawn: bool,
}

/// Why a lease could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// A file operation failed.
    #[error("{action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// It can't be written as JSON.
    #[error("encode lease {path}")]
    Encode {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: serde_json::Error,
    },
}

impl Lease {
    pub(crate) fn new(pod_id: &str, pod_uid: &str, link: String) -> Self {
        Self {
            version: VERSION,
            pod_id: pod_id.to_owned(),
            pod_uid: pod_uid.to_owned(),
            link,
            mac: String::new(),
            ips: Vec::new(),
            fixed: false,
            ports: Vec::new(),
            withdrawn: false,
        }
    }
}

impl Lease {
    /// As it was before it was lost.
    pub(crate) fn of(pod_id: &str, attachment: &Attachment) -> Self {
        let link = attachment.host_interface.clone();
        Self {
            mac: attachment.mac.clone().unwrap_or_default(),
            ips: attachment.ips.clone(),
            ports: attachment.port_mappings.clone(),
            ..Self::new(pod_id, "", link.unwrap_or_else(|| link_name(pod_id)))
        }
    }
}

/// The folder with all leases.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
}

impl Store {
    /// Opens the folder and reads all leases; a bad one is set aside under `bad-…` and reported.
    pub(crate) fn open(folder: PathBuf) -> Result<(Self, Vec<Lease>), LeaseError> {
        let failed = |action| {
            let path = folder.clone();
            move |source| LeaseError::File {
                action,
                path,
                source,
            }
        };
        fs::create_dir_all(&folder).map_err(failed("make folder"))?;
        let mut leases = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed("read folder"))? {
            let path = entry.map_err(failed("read folder"))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            if name.starts_with('.') {
                // Left by a crash before its rename: nothing was made for it yet.
                drop(fs::remove_file(&path));
            } else if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                match read(&path) {
                    Ok(lease) => leases.push(lease),
                    Err(reason) => quarantine(&folder, &path, name, &reason),
                }
            }
        }
        Ok((Self { folder }, leases))
    }

    pub(crate) fn write(&self, lease: &Lease) -> Result<(), LeaseError> {
        let path = self.path(&lease.pod_id);
        let temporary = self.folder.join(format!(".{}", lease.pod_id));
        let failed = |action| {
            let path = path.clone();
            move |source| LeaseError::File {
                action,
                path,
                source,
            }
        };
        let bytes = serde_json::to_vec(lease).map_err(|source| LeaseError::Encode {
            path: path.clone(),
            source,
        })?;
        let replace = || {
            joey_failpoint::hit("lease.create").map_err(failed("create"))?;
            let mut file = File::create(&temporary).map_err(failed("create"))?;
            file.write_all(&bytes).map_err(failed("write"))?;
            if lease.fixed {
                file.sync_all().map_err(failed("flush"))?;
            }
            joey_failpoint::hit("lease.rename").map_err(failed("rename to"))?;
            fs::rename(&temporary, &path).map_err(failed("rename to"))
        };
        if let Err(error) = replace() {
            drop(fs::remove_file(&temporary));
            return Err(error);
        }
        if lease.fixed {
            let folder = File::open(&self.folder).map_err(failed("open the folder of"))?;
            folder.sync_all().map_err(failed("flush the folder of"))?;
        }
        Ok(())
    }

    /// Missing is success.
    pub(crate) fn remove(&self, pod_id: &str) -> Result<(), LeaseError> {
        let path = self.path(pod_id);
        match joey_failpoint::hit("lease.remove").and_then(|()| fs::remove_file(&path)) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(LeaseError::File {
                action: "remove",
                path,
                source,
            }),
            _ => Ok(()),
        }
    }

    fn path(&self, pod_id: &str) -> PathBuf {
        self.folder.join(format!("{pod_id}.json"))
    }
}

fn read(path: &Path) -> Result<Lease, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MAX_SIZE {
        return Err(format!("{size} bytes are too many"));
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let lease: Lease = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if lease.version != VERSION {
        return Err(format!("version {} is unknown", lease.version));
    }
    if path.file_stem().and_then(|stem| stem.to_str()) != Some(lease.pod_id.as_str()) {
        return Err(format!("it names pod {}", lease.pod_id));
    }
    Ok(lease)
}

fn quarantine(folder: &Path, path: &Path, name: &str, reason: &str) {
    let aside = folder.join(format!("bad-{name}.quarantined"));
    tracing::error!(lease = %path.display(), reason, aside = %aside.display(), "bad lease set aside");
    if let Err(error) = fs::rename(path, &aside) {
        tracing::error!(lease = %path.display(), %error, "bad lease can't be set aside");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_survive_reopening_and_bad_ones_are_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let (store, none) = Store::open(path.clone()).unwrap();
        assert!(none.is_empty());
        let mut lease = Lease::new("pod-1", "uid", "jy0".to_owned());
        lease.ips = vec!["10.88.0.2".parse().unwrap()];
        lease.fixed = true;
        store.write(&lease).unwrap();
        fs::write(path.join("pod-2.json"), b"{").unwrap();
        fs::write(path.join("pod-3.json"), serde_json::to_vec(&lease).unwrap()).unwrap();
        fs::write(path.join(".pod-4"), b"").unwrap();
        let (store, leases) = Store::open(path.clone()).unwrap();
        assert_eq!(leases, [lease]);
        assert!(path.join("bad-pod-2.json.quarantined").exists());
        assert!(path.join("bad-pod-3.json.quarantined").exists());
        assert!(!path.join(".pod-4").exists());
        store.remove("pod-1").unwrap();
        store.remove("pod-1").unwrap();
        assert!(Store::open(path).unwrap().1.is_empty());
    }
}
