//! The root file system and volumes.

use std::fs;
use std::path::Path;

use joey_shim_client::proto::{Bind, Propagation, Start};

use crate::pod::{Pod, eventually, spec};

fn bind(source: &Path, destination: &str) -> Bind {
    Bind {
        source: source.to_string_lossy().into_owned(),
        destination: destination.into(),
        recursive: true,
        ..Bind::default()
    }
}

fn mount(args: &[&str]) {
    let done = std::process::Command::new(args[0])
        .args(&args[1..])
        .status()
        .unwrap();
    assert!(done.success(), "{args:?}");
}

/// What a container writes to its standard output.
async fn output(pod: &mut Pod, request: Start) -> Vec<String> {
    let id = request.container_id.clone();
    pod.run_request(request).await;
    let lines = pod.log_lines(&id);
    lines
        .iter()
        .filter_map(|line| Some(line.strip_prefix("stdout F ")?.to_owned()))
        .collect()
}

#[tokio::test]
async fn layers_are_stacked_and_only_the_upper_is_written() {
    let mut pod = Pod::new().await;
    let top = pod.dir.path().join("top");
    fs::create_dir_all(top.join("etc")).unwrap();
    fs::write(top.join("etc/over"), "top\n").unwrap();
    fs::write(pod.root().join("etc/over"), "bottom\n").unwrap();
    let mut request = pod.request("c", "cat /etc/over; echo new > /etc/over; cat /etc/over");
    let rootfs = request.rootfs.as_mut().unwrap();
    rootfs.lowers.insert(0, top.to_string_lossy().into_owned());
    rootfs.volatile = true;
    let upper = rootfs.upper.clone();
    assert_eq!(output(&mut pod, request.clone()).await, ["top", "new"]);
    assert_eq!(fs::read_to_string(top.join("etc/over")).unwrap(), "top\n");
    assert_eq!(
        fs::read_to_string(Path::new(&upper).join("etc/over")).unwrap(),
        "new\n"
    );
    // The same upper again.
    pod.shim.delete("c").await.unwrap();
    assert_eq!(output(&mut pod, request).await.first().unwrap(), "top");
    pod.end().await;
}

#[tokio::test]
async fn a_read_only_root_still_has_its_mount_points() {
    let mut pod = Pod::new().await;
    let data = pod.dir.path().join("data");
    fs::create_dir(&data).unwrap();
    let file = pod.dir.path().join("file");
    fs::write(&file, "text\n").unwrap();
    let mut request = pod.request(
        "c",
        "touch /x || echo refused; touch /new/data/y && echo ok; cat /other/file",
    );
    request.rootfs.as_mut().unwrap().readonly = true;
    request.binds = vec![bind(&data, "/new/data"), bind(&file, "/other/file")];
    let lines = output(&mut pod, request).await;
    assert_eq!(&lines[lines.len() - 3..], ["refused", "ok", "text"]);
    assert!(data.join("y").exists());
    pod.end().await;
}

#[tokio::test]
async fn read_only_volumes_are_read_only_as_deep_as_asked() {
    let mut pod = Pod::new().await;
    let data = pod.dir.path().join("data");
    fs::create_dir_all(data.join("sub")).unwrap();
    mount(&[
        "mount",
        "-t",
        "tmpfs",
        "tmpfs",
        &data.join("sub").to_string_lossy(),
    ]);
    let script =
        "touch /a/x && echo a; touch /a/sub/x && echo asub; touch /b/sub/x && echo bsub; exit 0";
    let mut request = pod.request("c", script);
    let shallow = Bind {
        readonly: true,
        ..bind(&data, "/a")
    };
    let deep = Bind {
        readonly: true,
        recursive_readonly: true,
        ..bind(&data, "/b")
    };
    request.binds = vec![shallow, deep];
    let lines = output(&mut pod, request).await;
    mount(&["umount", &data.join("sub").to_string_lossy()]);
    assert_eq!(lines, ["asub"]);
    pod.end().await;
}

#[tokio::test]
async fn mounts_propagate_as_asked() {
    let mut pod = Pod::new().await;
    let data = pod.dir.path().join("data");
    fs::create_dir(&data).unwrap();
    let path = data.to_string_lossy().into_owned();
    // A shared mount, as `/` is on hosts with systemd.
    mount(&["mount", "--bind", &path, &path]);
    mount(&["mount", "--make-shared", &path]);
    for dir in ["host", "inside"] {
        fs::create_dir(data.join(dir)).unwrap();
    }
    let mut request = pod.request("c", "sleep 1000");
    request.process.as_mut().unwrap().capabilities =
        Some(crate::pod::capabilities(&["CAP_SYS_ADMIN"]));
    request.binds = vec![
        bind(&data, "/private"),
        Bind {
            propagation: Propagation::HostToContainer.into(),
            ..bind(&data, "/slave")
        },
        Bind {
            propagation: Propagation::Bidirectional.into(),
            ..bind(&data, "/shared")
        },
    ];
    pod.shim.start(request).await.unwrap();
    mount(&["mount", "-t", "tmpfs", "tmpfs", &format!("{path}/host")]);
    fs::write(data.join("host/seen"), "").unwrap();
    let (_, seen) = pod
        .exec(
            "c",
            "ls -d /private/host/seen /slave/host/seen /shared/host/seen 2>/dev/null",
        )
        .await;
    pod.exec("c", "true").await;
    let process = joey_shim_client::proto::Process {
        capabilities: Some(crate::pod::capabilities(&["CAP_SYS_ADMIN"])),
        ..crate::pod::process(&[
            "/bin/sh",
            "-c",
            "mount -t tmpfs t /shared/inside && touch /shared/inside/back",
        ])
    };
    let done = pod
        .try_exec("c", process, joey_shim_client::ExecStreams::default())
        .await
        .unwrap();
    assert_eq!(pod.exec_exit(done.exec_id).await, 0);
    let back = data.join("inside/back").exists();
    pod.shim
        .kill(joey_shim_client::proto::Kill {
            container_id: "c".into(),
            signal: 9,
            all: true,
            exec_id: 0,
        })
        .await
        .unwrap();
    pod.exit("c").await;
    for dir in ["host", "inside"] {
        std::process::Command::new("umount")
            .args(["-l", &format!("{path}/{dir}")])
            .status()
            .unwrap();
    }
    mount(&["umount", "-l", &path]);
    assert_eq!(seen, "/shared/host/seen\n/slave/host/seen\n");
    assert!(back);
    pod.end().await;
}

#[tokio::test]
async fn an_image_volume_shows_its_layers_and_its_sub_path() {
    let mut pod = Pod::new().await;
    for (layer, file) in [("one", "a"), ("two", "b")] {
        let dir = pod.dir.path().join(layer).join("dir");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(file), file).unwrap();
    }
    let layer = |name: &str| pod.dir.path().join(name).to_string_lossy().into_owned();
    let image = Bind {
        image_layers: vec![layer("two")],
        error_prefix: "ImageVolumeMountFailed".into(),
        ..bind(&pod.dir.path().join("one"), "/image")
    };
    let part = Bind {
        destination: "/part".into(),
        sub_path: "dir".into(),
        ..image.clone()
    };
    let wrong = Bind {
        sub_path: "dir/a".into(),
        ..image.clone()
    };
    let mut request = pod.request(
        "c",
        "echo $(ls /image/dir) $(ls /part); touch /part/x || echo refused",
    );
    request.binds = vec![image, part];
    let lines = output(&mut pod, request).await;
    assert_eq!(
        (lines[0].as_str(), lines.last().unwrap().as_str()),
        ("a b a b", "refused")
    );
    let mut request = pod.request("d", "");
    request.binds = vec![wrong];
    let error = pod.shim.start(request).await.unwrap_err().to_string();
    assert!(
        error.starts_with("ImageVolumeMountFailed: ") && error.contains("not a directory"),
        "{error}"
    );
    pod.end().await;
}

#[tokio::test]
async fn sub_paths_and_mount_points_stay_inside() {
    let mut pod = Pod::new().await;
    let data = pod.dir.path().join("data");
    fs::create_dir_all(data.join("etc")).unwrap();
    fs::write(data.join("etc/hostname"), "mine\n").unwrap();
    std::os::unix::fs::symlink("/etc", data.join("link")).unwrap();
    std::os::unix::fs::symlink("/", pod.root().join("escape")).unwrap();
    let mut request = pod.request("c", "cat /m/hostname; ls /tmp/made");
    request.binds = vec![
        Bind {
            sub_path: "link".into(),
            ..bind(&data, "/m")
        },
        bind(&data.join("etc"), "/escape/tmp/made/here"),
    ];
    let inside = output(&mut pod, request).await;
    assert_eq!(inside, ["mine", "here"]);
    let mut request = pod.request("d", "");
    request.binds = vec![bind(&data, "/proc/self/attr")];
    let error = pod.shim.start(request).await.unwrap_err().to_string();
    assert!(error.contains("procfs"), "{error}");
    pod.end().await;
}

#[tokio::test]
async fn the_pods_shared_memory_is_one() {
    let mut pod = Pod::new().await;
    let shm = Bind {
        destination: "/dev/shm".into(),
        pod_shm: true,
        ..Bind::default()
    };
    let mut request = pod.request(
        "a",
        "echo text > /dev/shm/file; df -k /dev/shm | grep -o 8192",
    );
    request.binds = vec![shm.clone()];
    assert_eq!(output(&mut pod, request).await[0], "8192");
    let mut request = pod.request("b", "cat /dev/shm/file");
    request.binds = vec![shm.clone()];
    assert_eq!(output(&mut pod, request).await, ["text"]);
    // With a bind mount in the spec, libcontainer gets the host's tree.
    let mut request = pod.request("d", "cat /dev/shm/file; cat /hosts");
    request.binds = vec![shm];
    request.rootfs_path = pod.dir.path().join("mnt").to_string_lossy().into_owned();
    let mut config = spec();
    let hosts = serde_json::json!({"type": "bind", "source": "/etc/hostname", "destination": "/hosts", "options": ["bind"]});
    config["mounts"].as_array_mut().unwrap().push(hosts);
    config["hooks"] = serde_json::json!({"createRuntime": [{"path": "/bin/true"}]});
    fs::write(
        Path::new(&request.bundle).join("config.json"),
        config.to_string(),
    )
    .unwrap();
    let lines = output(&mut pod, request).await;
    assert_eq!(
        lines,
        ["text", fs::read_to_string("/etc/hostname").unwrap().trim()]
    );
    pod.end().await;
}

#[tokio::test]
async fn the_container_sees_its_own_cgroup_and_cannot_write_it() {
    let mut pod = Pod::new().await;
    let script = "ls /sys/fs/cgroup; cd /sys/fs/cgroup; [ -d memory ] && cd memory; grep -c . cgroup.procs; \
                  mkdir x || echo refused";
    let request = pod.request("c", script);
    let lines = output(&mut pod, request).await;
    assert!(lines.contains(&"refused".to_owned()), "{lines:?}");
    assert!(
        lines
            .iter()
            .any(|line| line.parse().is_ok_and(|count: u32| count > 0)),
        "{lines:?}"
    );
    eventually("the container ends", || true).await;
    pod.end().await;
}
