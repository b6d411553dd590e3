//! The file of credentials: docker's `config.json`, which podman's `auth.json` is too.

use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use joey_proto::api::RegistryAuth;
use rustix::io::Errno;
use serde_json::{Map, Value, json};

use super::{AuthError, DEFAULT_REGISTRY, canonical, helper};

/// What docker calls Docker Hub in its file and to helpers.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// The file, which need not exist.
#[derive(Debug)]
pub struct AuthFile {
    path: PathBuf,
    content: Map<String, Value>,
}

impl AuthFile {
    /// Reads `$REGISTRY_AUTH_FILE`, `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`.
    pub fn find() -> Result<Self, AuthError> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let path = if let Some(file) = variable("REGISTRY_AUTH_FILE") {
            PathBuf::from(file)
        } else if let Some(folder) = variable("DOCKER_CONFIG") {
            PathBuf::from(folder).join("config.json")
        } else {
            let home = variable("HOME").ok_or(AuthError::NoHome)?;
            PathBuf::from(home).join(".docker/config.json")
        };
        Self::read(path)
    }

    fn read(path: PathBuf) -> Result<Self, AuthError> {
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(source) => {
                return Err(AuthError::File {
                    action: "read",
                    path,
                    source,
                });
            }
        };
        if bytes.trim_ascii().is_empty() {
            let content = Map::new();
            return Ok(Self { path, content });
        }
        match serde_json::from_slice(&bytes) {
            Ok(content) => Ok(Self { path, content }),
            Err(error) => Err(AuthError::Malformed {
                path,
                why: error.to_string(),
            }),
        }
    }

    /// The credentials for a repository: a helper's, or the file's for the longest part of its name.
    pub fn get(&self, host: &str, path: &str) -> Result<Option<RegistryAuth>, AuthError> {
        if let Some(helper) = self.helper(host)
            && let Some(auth) = helper::get(helper, key(host))?
        {
            return Ok(Some(auth));
        }
        let mut name = format!("{host}/{path}");
        loop {
            if let Some(entry) = self.entry(&name) {
                return self.decode(&name, entry);
            }
            match name.rfind('/') {
                Some(end) => name.truncate(end),
                None => return Ok(None),
            }
        }
    }

    /// Keeps credentials; in a helper where one is set.
    pub fn store(&mut self, host: &str, username: &str, password: &str) -> Result<(), AuthError> {
        if let Some(helper) = self.helper(host) {
            return helper::store(helper, key(host), username, password);
        }
        let auth = STANDARD.encode(format!("{username}:{password}"));
        self.change(|file| {
            file.forget(host);
            let path = file.path.clone();
            let auths = file.content.entry("auths").or_insert_with(|| json!({}));
            let Value::Object(auths) = auths else {
                let why = "auths is no object".to_owned();
                return Err(AuthError::Malformed { path, why });
            };
            auths.insert(key(host).to_owned(), json!({ "auth": auth }));
            Ok(())
        })
    }

    /// Removes credentials; false where there were none.
    pub fn erase(&mut self, host: &str) -> Result<bool, AuthError> {
        let mut known = false;
        if let Some(helper) = self.helper(host) {
            known = helper::get(helper, key(host))?.is_some();
            if known {
                helper::erase(helper, key(host))?;
            }
        }
        if self.forget(host) {
            self.change(|file| {
                file.forget(host);
                Ok(())
            })?;
            known = true;
        }
        Ok(known)
    }

    /// Changes the file as it is now, while no other joey does.
    fn change(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<(), AuthError>,
    ) -> Result<(), AuthError> {
        // A link to the file stays one.
        let target = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let folder = target.parent().filter(|path| !path.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new("."));
        let failed = |source| AuthError::File {
            action: "write",
            path: target.clone(),
            source,
        };
        let _lock = lock(folder).map_err(failed)?;
        *self = Self::read(self.path.clone())?;
        change(self)?;
        replace(&target, &self.content).map_err(failed)
    }

    fn forget(&mut self, host: &str) -> bool {
        let Some(Value::Object(auths)) = self.content.get_mut("auths") else {
            return false;
        };
        let before = auths.len();
        auths.retain(|key, _| canonical(key) != host);
        auths.len() < before
    }

    fn helper(&self, host: &str) -> Option<&str> {
        let own = self.content.get("credHelpers").and_then(Value::as_object);
        let own = own.and_then(|helpers| {
            let found = helpers.iter().find(|(key, _)| canonical(key) == host);
            found.and_then(|(_, name)| name.as_str())
        });
        own.or_else(|| self.content.get("credsStore")?.as_str())
            .filter(|name| !name.is_empty())
    }

    fn entry(&self, name: &str) -> Option<&Map<String, Value>> {
        let auths = self.content.get("auths")?.as_object()?;
        let (_, entry) = auths.iter().find(|(key, _)| canonical(key) == name)?;
        entry.as_object().filter(|entry| !entry.is_empty())
    }

    fn decode(
        &self,
        name: &str,
        entry: &Map<String, Value>,
    ) -> Result<Option<RegistryAuth>, AuthError> {
        let field = |key: &str| {
            let text = entry.get(key).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let mut auth = RegistryAuth {
            username: field("username"),
            password: field("password"),
            identity_token: field("identitytoken"),
            registry_token: field("registrytoken"),
        };
        let encoded = field("auth");
        if auth.username.is_empty() && !encoded.is_empty() {
            // What is wrong with a secret is not shown.
            let malformed = || AuthError::Malformed {
                path: self.path.clone(),
                why: format!("the auth of {name} is not base64 of user:password"),
            };
            let text = STANDARD.decode(encoded.trim()).ok();
            let text = text.and_then(|bytes| String::from_utf8(bytes).ok());
            let text = text.ok_or_else(malformed)?;
            let (username, password) = text.split_once(':').ok_or_else(malformed)?;
            auth.username = username.to_owned();
            auth.password = password.trim_end_matches('\0').to_owned();
        }
        Ok(Some(auth))
    }
}

/// Makes the folder where it is not there, and keeps other joeys from its files until the lock is
/// dropped.
fn lock(folder: &Path) -> io::Result<File> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(folder)?;
    let lock = File::open(folder)?;
    match lock.lock() {
        // Some file systems have no locks for folders.
        Err(error) if !without_locks(&error) => Err(error),
        _ => Ok(lock),
    }
}

fn without_locks(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(
        errno,
        Some(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::BADF | Errno::INVAL)
    )
}

/// Replaces a file atomically. A new one is for its owner alone; another keeps its owner and mode,
/// whoever runs joey.
fn replace(target: &Path, content: &Map<String, Value>) -> io::Result<()> {
    let mut temporary = target.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let mut bytes = serde_json::to_vec_pretty(content)?;
    bytes.push(b'\n');
    let write = || {
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        if let Ok(former) = fs::metadata(target) {
            keep_owner(&file, &former)?;
        }
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, target)
    };
    write().inspect_err(|_| drop(fs::remove_file(&temporary)))
}

fn keep_owner(file: &File, former: &Metadata) -> io::Result<()> {
    let new = file.metadata()?;
    let (uid, gid) = (former.uid(), former.gid());
    if (new.uid(), new.gid()) != (uid, gid) {
        match fchown(file, Some(uid), Some(gid)) {
            // Another's file in a folder of one's own becomes one's own.
            Err(error) if error.kind() != ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
    }
    file.set_permissions(Permissions::from_mode(former.mode() & 0o777))
}

fn key(host: &str) -> &str {
    match host {
        DEFAULT_REGISTRY => HUB_KEY,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, content: &str) -> AuthFile {
        let path = std::env::temp_dir().join(format!("joey-auth-{name}-{}", std::process::id()));
        fs::write(&path, content).unwrap();
        AuthFile::read(path).unwrap()
    }

    #[test]
    fn the_longest_name_wins() {
        let file = file(
            "names",
            r#"{"auths": {
                "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
                "h:5000": {"username": "host", "password": "a:b"},
                "h:5000/team": {"identitytoken": "t"},
                "empty": {}
            }}"#,
        );
        let get = |host, path| file.get(host, path).unwrap();
        let hub = get("docker.io", "library/busybox").unwrap();
        assert_eq!((hub.username, hub.password), ("hub".into(), "pw".into()));
        assert_eq!(get("h:5000", "x/app").unwrap().password, "a:b");
        assert_eq!(get("h:5000", "team/app").unwrap().identity_token, "t");
        assert!(get("empty", "app").is_none() && get("other", "app").is_none());
        fs::remove_file(file.path).unwrap();
    }

    #[test]
    fn what_is_stored_is_found_and_the_rest_is_kept() {
        let mut kept = file("store", r#"{"detachKeys": "ctrl-x", "auths": {"old": {}}}"#);
        kept.store("h", "user", "pass:word").unwrap();
        let mut again = AuthFile::read(kept.path.clone()).unwrap();
        assert_eq!(again.content["detachKeys"], "ctrl-x");
        assert_eq!(again.get("h", "a").unwrap().unwrap().password, "pass:word");
        assert!(again.erase("h").unwrap() && !again.erase("h").unwrap());
        assert!(
            AuthFile::read(kept.path.clone())
                .unwrap()
                .get("h", "a")
                .unwrap()
                .is_none()
        );
        fs::remove_file(kept.path).unwrap();
    }

    #[test]
    fn what_others_stored_meanwhile_is_kept() {
        let mut first = file("race", "{}");
        let mut second = AuthFile::read(first.path.clone()).unwrap();
        first.store("a", "user", "one").unwrap();
        second.store("b", "user", "two").unwrap();
        first.store("c", "user", "three").unwrap();
        assert!(second.erase("b").unwrap());
        let last = AuthFile::read(first.path.clone()).unwrap();
        let known = |host| last.get(host, "x").unwrap().is_some();
        assert!(known("a") && !known("b") && known("c"));
        fs::remove_file(first.path).unwrap();
    }

    #[test]
    fn a_secret_is_not_in_an_error() {
        let file = file("bad", r#"{"auths": {"reg.example": {"auth": "c2VjcmV0"}}}"#);
        let error = file.get("reg.example", "a").unwrap_err().to_string();
        assert!(
            error.contains("reg.example") && !error.contains("secret") && !error.contains("c2Vj")
        );
        fs::write(&file.path, "[").unwrap();
        AuthFile::read(file.path.clone()).unwrap_err();
        fs::remove_file(file.path).unwrap();
    }
}
