//! What is mounted into containers, and how.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use joey_proto::cri::*;
use joey_tests::{Stand, bind, pod_security, security};

fn mount_tmpfs(at: &Path) {
    std::fs::create_dir_all(at).unwrap();
    let mut command = Command::new("mount");
    let status = command.args(["-t", "tmpfs", "none"]).arg(at).status();
    assert!(status.unwrap().success());
}

fn unmount(at: &Path) {
    let status = Command::new("umount").args(["-l"]).arg(at).status();
    assert!(status.unwrap().success());
}

fn propagated(source: &Path, to: &str, mode: MountPropagation) -> Mount {
    Mount {
        propagation: mode.into(),
        ..bind(source, to)
    }
}

#[tokio::test]
async fn mounts_propagate_as_asked() {
    let stand = Stand::start().await;
    let volume = tempfile::tempdir_in("/var/tmp").unwrap();
    let mut config = stand.pod_config("propagation");
    pod_security(&mut config).privileged = true;
    let pod = stand.client.run_pod(&config).await;
    let mut container = stand.sleeper("main");
    security(&mut container).privileged = true;
    container.mounts = vec![
        propagated(
            volume.path(),
            "/private",
            MountPropagation::PropagationPrivate,
        ),
        propagated(
            volume.path(),
            "/slave",
            MountPropagation::PropagationHostToContainer,
        ),
        propagated(
            volume.path(),
            "/shared",
            MountPropagation::PropagationBidirectional,
        ),
    ];
    let id = stand.client.run(&pod, &container, &config).await;

    let late = volume.path().join("late");
    mount_tmpfs(&late);
    std::fs::write(late.join("file"), "").unwrap();
    let seen = stand
        .client
        .exec(
            &id,
            &["sh", "-c", "cd /; ls private/late shared/late slave/late"],
        )
        .await
        .0;
    let wanted = "private/late:\n\nshared/late:\nfile\n\nslave/late:\nfile\n";
    assert_eq!(seen, wanted);
    unmount(&late);

    let script = "mkdir /shared/up /slave/down; mount -t tmpfs none /shared/up && \
                  mount -t tmpfs none /slave/down && echo done";
    let (seen, err, _) = stand.client.exec(&id, &["sh", "-c", script]).await;
    assert_eq!(seen, "done\n", "{err}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let name = |name: &str| volume.path().join(name).to_string_lossy().into_owned();
    assert!(mounts.contains(&name("up")), "{mounts}");
    assert!(!mounts.contains(&name("down")), "{mounts}");
    unmount(&volume.path().join("up"));

    stand.client.remove_pod(&pod).await;
    stand.assert_clean().await;
}

#[tokio::test]
async fn read_only_is_the_mount_alone_and_recursive_read_only_all_beneath() {
    let stand = Stand::start().await;
    let volume = tempfile::tempdir_in("/var/tmp").unwrap();
    let sub = volume.path().join("sub");
    mount_tmpfs(&sub);
    let config = stand.pod_config("readonly");
    let pod = stand.client.run_pod(&config).await;
    let script = "for f in w/f w/sub/f r/f r/sub/f a/f a/sub/f; do \
                  echo x 2>/dev/null >$f && echo $f; done 2>/dev/null; true";
    let mut container = stand.container("main", &["sh", "-c", script]);
    container.working_dir = "/".into();
    let readonly = Mount {
        readonly: true,
        ..bind(volume.path(), "/r")
    };
    let all = Mount {
        readonly: true,
        recursive_read_only: true,
        ..bind(volume.path(), "/a")
    };
    container.mounts = vec![bind(volume.path(), "/w"), readonly, all.clone()];
    let (seen, _) = stand.run_to_end(&pod, &container, &config).await;
    assert_eq!(seen, "w/f\nw/sub/f\nr/sub/f\n");

    let writable = Mount {
        readonly: false,
        ..all.clone()
    };
    let slave = Mount {
        propagation: MountPropagation::PropagationHostToContainer.into(),
        ..all
    };
    for wrong in [writable, slave] {
        let mut container = stand.sleeper("wrong");
        container.mounts = vec![wrong];
        let error = stand.client.create(&pod, &container, &config).await;
        let error = error.unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument, "{error}");
        assert!(error.message().contains("/a"), "{error}");
    }
    stand.client.remove_pod(&pod).await;
    unmount(&sub);
    stand.assert_clean().await;
}

#[tokio::test]
async fn symlinked_sources_are_followed_and_missing_ones_named() {
    let stand = Stand::start().await;
    let volume = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::create_dir(volume.path().join("real")).unwrap();
    std::fs::write(volume.path().join("real/file"), "there").unwrap();
    let link = volume.path().join("link");
    std::os::unix::fs::symlink("real", &link).unwrap();
    let config = stand.pod_config("links");
    let pod = stand.client.run_pod(&config).await;
    let mut container = stand.container("main", &["cat", "/d/file", "/f"]);
    container.mounts = vec![bind(&link, "/d"), bind(&link.join("file"), "/f")];
    let (seen, _) = stand.run_to_end(&pod, &container, &config).await;
    assert_eq!(seen, "therethere\n");

    let missing = volume.path().join("missing");
    let mut container = stand.sleeper("missing");
    container.mounts = vec![bind(&missing, "/d")];
    let error = stand.client.create(&pod, &container, &config).await;
    let error = error.unwrap_err();
    assert!(error.message().contains("/missing"), "{error}");
    assert!(!missing.exists(), "it is not made");

    stand.client.remove_pod(&pod).await;
    stand.assert_clean().await;
}

#[tokio::test]
async fn image_mounts_show_a_folder_of_an_image() {
    let stand = Stand::start().await;
    let config = stand.pod_config("images");
    let pod = stand.client.run_pod(&config).await;
    let image = |sub_path: &str| Mount {
        container_path: "/i".into(),
        image: Some(ImageSpec {
            image: stand.image.clone(),
            ..Default::default()
        }),
        image_sub_path: sub_path.into(),
        readonly: true,
        ..Default::default()
    };
    let whole = "ls -d /i/etc/passwd; echo x 2>/dev/null >/i/new || echo readonly";
    let mut container = stand.container("whole", &["sh", "-c", whole]);
    container.mounts = vec![image("")];
    let (seen, _) = stand.run_to_end(&pod, &container, &config).await;
    assert!(seen.starts_with("/i/etc/passwd\n"), "{seen}");
    assert!(seen.contains("readonly\n"), "{seen}");
    let mut container = stand.container("part", &["ls", "/i"]);
    container.mounts = vec![image("etc")];
    let (seen, _) = stand.run_to_end(&pod, &container, &config).await;
    assert_eq!(seen, "group\npasswd\n");

    for (index, wrong) in ["missing", "etc/passwd"].iter().enumerate() {
        let mut container = stand.sleeper(&format!("wrong{index}"));
        container.mounts = vec![image(wrong)];
        let error = match stand.client.create(&pod, &container, &config).await {
            Ok(id) => stand.client.start(&id).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(
            error.message().starts_with("ImageVolumeMountFailed"),
            "{error}"
        );
    }
    stand.client.remove_pod(&pod).await;
    stand.assert_clean().await;
}

/// A file system whose server never answers, as a dead NFS server's.
struct Dead {
    at: std::path::PathBuf,
    _server: std::fs::File,
}

impl Dead {
    fn mount(at: &Path) -> Self {
        use std::os::fd::AsRawFd;

        std::fs::create_dir_all(at).unwrap();
        let mut options = std::fs::File::options();
        let server = options.read(true).write(true).open("/dev/fuse").unwrap();
        let data = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0",
            server.as_raw_fd()
        );
        let data = std::ffi::CString::new(data).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("dead", at, "fuse", flags, data.as_c_str()).unwrap();
        Self {
            at: at.to_owned(),
            _server: server,
        }
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        let status = Command::new("umount").arg("-l").arg(&self.at).status();
        assert!(status.unwrap().success() || std::thread::panicking());
    }
}

#[tokio::test]
async fn a_source_whose_server_is_dead_is_named_and_holds_up_nobody() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let dead = Dead::mount(&folder.path().join("dead"));
    let config = stand.pod_config("nfs");
    let pod = stand.client.run_pod(&config).await;
    let mut container = stand.sleeper("late");
    container.mounts = vec![bind(&dead.at.join("volume"), "/data")];
    let request = CreateContainerRequest {
        pod_sandbox_id: pod.clone(),
        config: Some(container),
        sandbox_config: Some(config.clone()),
    };
    // As many as the daemon has threads for its calls, and more.
    let calls = (0..16).map(|attempt| {
        let mut request = request.clone();
        let metadata = &mut request.config.as_mut().unwrap().metadata;
        metadata.as_mut().unwrap().attempt = attempt;
        let mut runtime = stand.client.runtime();
        tokio::spawn(async move { runtime.create_container(request).await })
    });
    let calls: Vec<_> = calls.collect();
    let others = async {
        let other = stand.pod_config("other");
        let pod = stand.client.run_pod(&other).await;
        let id = stand.client.run(&pod, &stand.sleeper("main"), &other).await;
        assert_eq!(stand.client.exec(&id, &["echo", "fine"]).await.0, "fine\n");
        stand.client.remove_pod(&pod).await;
    };
    let limit = std::time::Duration::from_secs(8);
    tokio::time::timeout(limit, others)
        .await
        .expect("others go on");
    for call in calls {
        let limit = std::time::Duration::from_secs(20);
        let answered = tokio::time::timeout(limit, call).await.expect("an answer");
        let refused = answered.unwrap().unwrap_err();
        assert_eq!(refused.code(), tonic::Code::DeadlineExceeded, "{refused}");
        let path = dead.at.to_string_lossy();
        assert!(refused.message().contains(&*path), "{refused}");
    }
    drop(dead);
    stand.client.remove_pod(&pod).await;
    stand.assert_clean().await;
}
