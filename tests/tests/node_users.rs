//! What unprivileged users of the node can reach.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use joey_tests::Stand;

const NOBODY: u32 = 65_534;

/// What busybox answers an unprivileged user; `None` where it fails.
fn as_nobody(arguments: &[&str], path: &Path) -> Option<String> {
    let output = Command::new("/bin/busybox")
        .args(arguments)
        .arg(path)
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

/// Runs a program as an unprivileged user; false where the kernel does not let it start.
fn starts_as_nobody(program: &Path) -> bool {
    let mut command = Command::new(program);
    let status = command.arg("true").uid(NOBODY).gid(NOBODY).status();
    status.is_ok_and(|status| status.success())
}

fn first_of(folder: &Path) -> std::path::PathBuf {
    let mut entries = std::fs::read_dir(folder).unwrap();
    entries.next().unwrap().unwrap().path()
}

#[tokio::test]
async fn cve_2021_41103_set_user_id_programs_are_for_containers_alone() {
    let node = Stand::start().await;
    // As /var/lib is; what is below is the daemon's to close.
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(node.daemon.folder(), open).unwrap();
    let root = node.daemon.root();
    assert!(as_nobody(&["ls"], node.daemon.folder()).is_some());

    let config = node.pod_config("set-user-id");
    let pod = node.client.run_pod(&config).await;
    let container = node.container(
        "main",
        &[
            "sh",
            "-c",
            "cp /bin/busybox /s && chmod 4755 /s && sleep 1000",
        ],
    );
    let id = node.client.run(&pod, &container, &config).await;
    let planted = root.join("writable").join(&id).join("upper/s");
    joey_tests::eventually("the program is planted", || async {
        std::fs::metadata(&planted).is_ok_and(|file| file.permissions().mode() & 0o4000 != 0)
    })
    .await;
    assert!(!starts_as_nobody(&planted), "{}", planted.display());

    let images = root.join("images");
    let layer = first_of(&images.join("layers"));
    let program = layer.join("fs/bin/busybox");
    assert!(program.exists());
    assert!(!starts_as_nobody(&program), "{}", program.display());
    let private =
        ["images", "holds", "layers", "content/blobs/sha256"].map(|name| images.join(name));
    for folder in private
        .iter()
        .chain([&root.join("writable"), &root.join("pods")])
    {
        assert_eq!(as_nobody(&["ls"], folder), None, "{}", folder.display());
        let file = first_of(folder);
        assert_eq!(as_nobody(&["stat"], &file), None, "{}", file.display());
    }

    // What stands open would be seen.
    for folder in [&root, &images, &images.join("layers"), &layer] {
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder, open).unwrap();
    }
    assert!(starts_as_nobody(&program), "the test sees nothing");

    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}
