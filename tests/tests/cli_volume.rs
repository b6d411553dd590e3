//! Volumes of `joey run`, on file systems that answer and on one that does not.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use joey_tests::{Stand, piped};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

#[tokio::test]
async fn a_folder_that_is_not_there_is_made_and_a_file_stays_one() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (new, file) = (folder.path().join("a/b"), folder.path().join("file"));
    std::fs::write(&file, "kept").unwrap();
    let run = |source: &Path, command: &str| {
        let volume = format!("{}:/volume", source.display());
        let image = stand.image_name.as_str();
        stand.joey(&["run", "--rm", "-v", &volume, image, "sh", "-c", command])
    };
    let made = run(&new, "echo made > /volume/file");
    assert!(made.status.success(), "{made:?}");
    assert_eq!(std::fs::read(new.join("file")).unwrap(), b"made\n");
    assert_eq!(run(&file, "cat /volume").stdout, b"kept");
    let refused = run(&file.join("beneath"), "true");
    let error = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(125));
    assert!(error.contains("file/beneath"), "{error}");
    assert_eq!(stand.out(&["ps", "-aq"]), "");
    stand.assert_clean().await;
}

/// A FUSE file system whose server never answers, as NFS without its server.
struct Dead<'a> {
    at: &'a Path,
    server: Option<File>,
}

impl<'a> Dead<'a> {
    fn mount(at: &'a Path) -> Self {
        let server = File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .unwrap();
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0",
            server.as_raw_fd()
        );
        let options = std::ffi::CString::new(options).unwrap();
        mount(
            "dead",
            at,
            "fuse",
            MountFlags::empty(),
            Some(options.as_c_str()),
        )
        .unwrap();
        Self {
            at,
            server: Some(server),
        }
    }
}

impl Drop for Dead<'_> {
    fn drop(&mut self) {
        // Who waits for an answer gets an error.
        drop(self.server.take());
        unmount(self.at, UnmountFlags::DETACH).unwrap_or_default();
    }
}

#[tokio::test]
async fn a_file_system_that_does_not_answer_stops_nobody_else() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let dead = Dead::mount(folder.path());
    let clients: Vec<_> = (0..8)
        .map(|number| {
            let volume = format!("{}/{number}:/volume", folder.path().display());
            piped(&mut stand.joey_command(&["create", "-v", &volume, &stand.image_name, "true"]))
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    assert_eq!(
        stand.out(&["run", "--rm", &stand.image_name, "echo", "on"]),
        "on\n"
    );
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    for (number, client) in clients.into_iter().enumerate() {
        let ended = client.wait_with_output().unwrap();
        let error = String::from_utf8(ended.stderr).unwrap();
        let named = format!("{}/{number}", folder.path().display());
        assert!(
            error.contains(&named) && error.contains("does not answer"),
            "{error}"
        );
    }
    drop(dead);
    stand.assert_clean().await;
}
