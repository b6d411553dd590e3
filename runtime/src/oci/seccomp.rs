//! The seccomp programs of a container.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use joey_seccomp::{Cache, Compiled, Profile};

use super::capabilities;
use crate::error::{Error, Result};
use crate::model::{Security, SecurityProfile};

/// Where relative names of Localhost profiles are: the kubelet sends absolute ones.
const PROFILE_ROOT: &str = "/var/lib/kubelet/seccomp";
/// No profile is larger.
const MAX_PROFILE_BYTES: u64 = 4 << 20;

/// The compiled profile of a container; None when it is unconfined.
///
/// # Errors
/// When the profile can't be read, parsed or compiled.
pub(crate) fn seccomp(cache: &Cache, security: &Security) -> Result<Option<Arc<Compiled>>> {
    if security.privileged {
        return Ok(None);
    }
    let profile = match &security.seccomp {
        SecurityProfile::Unconfined => return Ok(None),
        SecurityProfile::RuntimeDefault => None,
        SecurityProfile::Localhost(name) => Some(read_profile(name)?),
    };
    let capabilities = capabilities(security)?.bounding;
    let compiled = match &profile {
        None => cache.get(Profile::runtime_default(), &capabilities),
        Some(profile) => cache.get(profile, &capabilities),
    };
    compiled
        .map(Some)
        .map_err(|e| Error::step("compile the seccomp profile", e))
}

fn read_profile(name: &str) -> Result<Profile> {
    let path = Path::new(name);
    let path = if path.is_absolute() {
        path.to_owned()
    } else {
        PathBuf::from(PROFILE_ROOT).join(path)
    };
    let file = |error| Error::file("read the seccomp profile", &path, error);
    let size = std::fs::metadata(&path).map_err(file)?.len();
    if size > MAX_PROFILE_BYTES {
        return Err(Error::invalid(format!(
            "seccomp profile {} has {size} bytes, more than {MAX_PROFILE_BYTES}",
            path.display()
        )));
    }
    let bytes = std::fs::read(&path).map_err(file)?;
    Profile::parse(&bytes)
        .map_err(|e| Error::step(format!("parse the seccomp profile {}", path.display()), e))
}
