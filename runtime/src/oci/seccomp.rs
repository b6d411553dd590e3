//! The seccomp programs of a container.

use std::path::Path;
use std::sync::Arc;

use joey_seccomp::{Cache, Compiled, Profile};

use super::capabilities;
use crate::error::{Error, Result};
use crate::model::{Security, SecurityProfile};

/// Where relative names of Localhost profiles are: the kubelet sends absolute ones.
const PROFILE_ROOT: &str = "/var/lib/kubelet/seccomp";
/// No profile is larger.
const MAX_PROFILE_BYTES: u64 = 4 << 20;

/// The compiled profile of a container; None when it is unconfined. `copy` is what was kept of a
/// Localhost one.
///
/// # Errors
/// When the profile can't be read, parsed or compiled.
pub(crate) fn seccomp(
    cache: &Cache,
    security: &Security,
    copy: &Path,
) -> Result<Option<Arc<Compiled>>> {
    match security.seccomp {
        _ if security.privileged => Ok(None),
        SecurityProfile::Unconfined => Ok(None),
        SecurityProfile::RuntimeDefault => {
            compile(cache, security, Profile::runtime_default()).map(Some)
        }
        SecurityProfile::Localhost(ref name) => {
            // A container of an older daemon has no copy.
            let original = Path::new(PROFILE_ROOT).join(name);
            let path = if copy.exists() { copy } else { &original };
            compile(cache, security, &parse(path, &read(path)?)?).map(Some)
        }
    }
}

/// The text of a container's Localhost profile, None with another. It is kept with the container:
/// every process of it gets the same filter, whatever becomes of the file.
///
/// # Errors
/// When the profile can't be read, parsed or compiled.
pub(crate) fn local_profile(cache: &Cache, security: &Security) -> Result<Option<Vec<u8>>> {
    let SecurityProfile::Localhost(name) = &security.seccomp else {
        return Ok(None);
    };
    if security.privileged {
        return Ok(None);
    }
    let path = Path::new(PROFILE_ROOT).join(name);
    let text = read(&path)?;
    compile(cache, security, &parse(&path, &text)?)?;
    Ok(Some(text))
}

fn compile(cache: &Cache, security: &Security, profile: &Profile) -> Result<Arc<Compiled>> {
    let capabilities = capabilities(security)?.bounding;
    let compiled = cache.get(profile, &capabilities);
    compiled.map_err(|e| Error::step("compile the seccomp profile", e))
}

fn parse(path: &Path, text: &[u8]) -> Result<Profile> {
    let step = || format!("parse the seccomp profile {}", path.display());
    Profile::parse(text).map_err(|e| Error::step(step(), e))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let file = |error| Error::file("read the seccomp profile", path, error);
    let metadata = std::fs::metadata(path).map_err(file)?;
    let wrong = |what: &str| Error::invalid(format!("seccomp profile {} {what}", path.display()));
    if !metadata.is_file() {
        return Err(wrong("is no file"));
    }
    if metadata.len() > MAX_PROFILE_BYTES {
        let bytes = metadata.len();
        return Err(wrong(&format!(
            "has {bytes} bytes, more than {MAX_PROFILE_BYTES}"
        )));
    }
    std::fs::read(path).map_err(file)
}
