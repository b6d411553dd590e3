//! The unix sockets clients connect to.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::net::UnixListener;

/// Read and write for owner and group.
const MODE: u32 = 0o660;
const SCHEME: &str = "unix://";

/// An address that can't be served on.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Neither `unix://` nor an absolute path.
    #[error("{0:?} is no address to serve on: write unix:///an/absolute/path")]
    Address(String),
    /// Somebody answers on it.
    #[error("{0} is served by another process")]
    InUse(PathBuf),
    /// There is something else in its place.
    #[error("{0} is there and is no socket")]
    NotASocket(PathBuf),
    /// A system call failed.
    #[error("serve on {path}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A listening socket; its file goes with it.
#[derive(Debug)]
pub struct Listener {
    /// What accepts.
    pub listener: UnixListener,
    /// Removes the file.
    pub file: SocketFile,
}

/// The file of a socket, removed on drop.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "the socket was gone");
        }
    }
}

/// Where an address is in the file system.
///
/// # Errors
/// When it is not a unix address.
pub fn path_of(address: &str) -> Result<PathBuf, ListenError> {
    let path = Path::new(address.strip_prefix(SCHEME).unwrap_or(address));
    if !path.is_absolute() || path.file_name().is_none() {
        return Err(ListenError::Address(address.to_owned()));
    }
    Ok(path.to_owned())
}

/// Listens; a socket that nobody serves any more is replaced.
///
/// # Errors
/// When the address is wrong, in use or can't be made.
pub fn listen(address: &str) -> Result<Listener, ListenError> {
    let path = path_of(address)?;
    let failed = |source| ListenError::Io {
        path: path.clone(),
        source,
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    check_free(&path)?;
    // Made under another name, so that nobody connects before the mode is set.
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(name);
    // Left by a daemon that had this pid and was killed right here.
    drop(SocketFile(temporary.clone()));
    let listener = UnixListener::bind(&temporary).map_err(failed)?;
    let placed = std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(MODE))
        .and_then(|()| std::fs::rename(&temporary, &path));
    if let Err(error) = placed {
        drop(SocketFile(temporary));
        return Err(failed(error));
    }
    Ok(Listener {
        listener,
        file: SocketFile(path),
    })
}

fn check_free(path: &Path) -> Result<(), ListenError> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            Err(ListenError::NotASocket(path.to_owned()))
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            Err(ListenError::InUse(path.to_owned()))
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(source) => Err(ListenError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let folder = std::env::temp_dir().join(format!("joeyd-socket-{}", std::process::id()));
        let path = folder.join("a/joey.sock");
        let address = format!("unix://{}", path.display());
        std::fs::create_dir_all(folder.join("a")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());

        let first = listen(&address).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            MODE
        );
        assert!(matches!(listen(&address), Err(ListenError::InUse(_))));
        drop(first);
        assert!(!path.exists());

        std::fs::write(&path, "").unwrap();
        assert!(matches!(listen(&address), Err(ListenError::NotASocket(_))));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn only_absolute_unix_addresses() {
        assert_eq!(path_of("unix:///a/b").unwrap(), PathBuf::from("/a/b"));
        assert_eq!(path_of("/a/b").unwrap(), PathBuf::from("/a/b"));
        for address in ["tcp://1.2.3.4:5", "unix://a", "a", "", "unix:///"] {
            assert!(path_of(address).is_err(), "{address}");
        }
    }
}
