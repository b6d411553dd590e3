//! Namespaces that containers share, and user namespaces.

use std::fs;

use joey_shim_client::proto::{Bind, IdMapping, Kill, NamespaceMode, StartPod};
use joey_shim_client::{ShimError, ShimEvent};

use crate::pod::{Pod, capabilities, eventually, pod_request};

async fn shared_pod(mappings: &[IdMapping]) -> Pod {
    Pod::with(StartPod {
        new_pid: true,
        uid_mappings: mappings.to_vec(),
        gid_mappings: mappings.to_vec(),
        ..pod_request()
    })
    .await
}

#[tokio::test]
async fn a_shared_pid_namespaces_init_shows_nothing_of_the_host() {
    let mut pod = shared_pod(&[]).await;
    let script = "ls /proc/1/root/ | wc -l; cat /proc/1/cmdline; echo; ls /proc/1/fd | wc -l; touch /proc/1/root/x; \
                  grep -E 'CapBnd|CapPrm|NoNewPrivs' /proc/1/status; sleep 1000";
    let mut request = pod.request("a", script);
    request.pid_mode = NamespaceMode::Pod.into();
    request.process.as_mut().unwrap().capabilities = Some(capabilities(&["CAP_SYS_PTRACE"]));
    pod.shim.start(request).await.unwrap();
    eventually("the output", || pod.log("a").contains("NoNewPrivs")).await;
    let log = pod.log_lines("a");
    assert_eq!(&log[..2], ["stdout F 0", "stdout F joey-init\0"]);
    assert!(
        log.contains(&"stderr F touch: /proc/1/root/x: Read-only file system".to_owned()),
        "{log:?}"
    );
    let none = "0000000000000000";
    for line in [
        format!("CapPrm:\t{none}"),
        format!("CapBnd:\t{none}"),
        "NoNewPrivs:\t1".into(),
    ] {
        assert!(log.contains(&format!("stdout F {line}")), "{log:?}");
    }
    assert!(log.contains(&"stdout F 0".to_owned()));
    // Another container sees the first one's processes, and loses nothing when it ends.
    let mut request = pod.request("b", "ps | grep -c '[s]leep 1000'; (sleep 2000 &)");
    request.pid_mode = NamespaceMode::Pod.into();
    pod.run_request(request).await;
    assert_eq!(pod.log_lines("b"), ["stdout F 1"]);
    // What it left behind was killed with it, and is reaped by the pod's init.
    let script = "while ps | grep -q '[s]leep 2000'; do sleep 0.02; done";
    assert_eq!(pod.exec("a", script).await.0, 0);
    let children = format!("/proc/{0}/task/{0}/children", pod.shim.pid());
    let count = || {
        fs::read_to_string(&children)
            .unwrap()
            .split_whitespace()
            .count()
    };
    eventually("only the init and the first container are left", || {
        count() == 2
    })
    .await;
    pod.end().await;
}

#[tokio::test]
async fn the_end_of_the_shared_init_is_told() {
    let mut pod = Pod::with(StartPod {
        new_pid: true,
        ..pod_request()
    })
    .await;
    let mut request = pod.request("c", "sleep 1000");
    request.pid_mode = NamespaceMode::Pod.into();
    pod.shim.start(request).await.unwrap();
    let pid = rustix::process::Pid::from_raw(pod.init_pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut seen = (false, false);
    while seen != (true, true) {
        match pod.event().await {
            ShimEvent::InitExit(exit) => seen.0 = exit.code == 0,
            ShimEvent::Exit(exit) => seen.1 = exit.signal == 9,
            _ => {}
        }
    }
    pod.end().await;
}

#[tokio::test]
async fn a_killed_shim_takes_the_shared_namespace_along() {
    let mut pod = Pod::with(StartPod {
        new_pid: true,
        ..pod_request()
    })
    .await;
    let mut request = pod.request("c", "sleep 1000");
    request.pid_mode = NamespaceMode::Pod.into();
    let started = pod.shim.start(request).await.unwrap();
    rustix::process::pidfd_send_signal(pod.shim.pidfd(), rustix::process::Signal::KILL).unwrap();
    while pod.event().await != ShimEvent::Lost {}
    // Orphans are reaped by whoever is next above: a zombie counts as gone.
    let gone = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    let (init, container) = (pod.init_pid, started.pid);
    eventually("all of it ends", || gone(init) && gone(container)).await;
    let error = pod.shim.state().await.unwrap_err();
    assert!(matches!(error, ShimError::Lost { .. }), "{error}");
}

#[tokio::test]
async fn a_container_joins_the_processes_of_its_target() {
    let mut pod = Pod::new().await;
    pod.start("a", "sleep 1000").await;
    let mut request = pod.request(
        "b",
        "ps | grep -c '[s]leep 1000'; echo $$ | grep -v '^1$' >/dev/null && echo joined",
    );
    request.pid_mode = NamespaceMode::Target.into();
    request.target_container = "a".into();
    pod.run_request(request).await;
    assert_eq!(pod.log_lines("b"), ["stdout F 1", "stdout F joined"]);
    pod.shim
        .kill(Kill {
            container_id: "a".into(),
            signal: 15,
            ..Kill::default()
        })
        .await
        .unwrap();
    pod.end().await;
}

fn mapping() -> Vec<IdMapping> {
    vec![IdMapping {
        host_id: 400_000,
        container_id: 0,
        size: 65_536,
    }]
}

#[tokio::test]
async fn a_user_namespace_maps_root_files_pipes_and_execs() {
    let mut pod = shared_pod(&mapping()).await;
    for private in [true, false] {
        let id = if private { "private" } else { "pod" };
        let script = "id -u; cat /proc/self/uid_map; stat -c %u /bin/busybox /dev/shm /data; touch /new /data/made; \
                      echo reopened > /dev/stderr; hostname; sleep 1000";
        let mut request = pod.request(id, script);
        if !private {
            request.pid_mode = NamespaceMode::Pod.into();
        }
        let rootfs = request.rootfs.as_mut().unwrap();
        rootfs.idmap_lowers = true;
        let (upper, work) = (rootfs.upper.clone(), rootfs.work.clone());
        for dir in [&upper, &work] {
            std::os::unix::fs::chown(dir, Some(400_000), Some(400_000)).unwrap();
        }
        let data = pod.dir.path().join(format!("data-{id}"));
        fs::create_dir(&data).unwrap();
        let mapped = Bind {
            source: data.to_string_lossy().into_owned(),
            destination: "/data".into(),
            uid_mappings: mapping(),
            gid_mappings: mapping(),
            ..Bind::default()
        };
        let shm = Bind {
            destination: "/dev/shm".into(),
            pod_shm: true,
            ..Bind::default()
        };
        request.binds = vec![shm, mapped];
        let started = pod.shim.start(request).await.unwrap();
        eventually("the output", || pod.log(id).contains("inside")).await;
        let mut lines = pod.log_lines(id);
        lines.sort();
        let map = "stdout F          0     400000      65536";
        let expected = [
            "stderr F reopened",
            map,
            "stdout F 0",
            "stdout F 0",
            "stdout F 0",
            "stdout F 0",
            "stdout F inside",
        ];
        assert_eq!(lines, expected);
        let (code, output) = pod
            .exec(id, "id -u; cat /proc/self/uid_map; echo > /dev/stdout")
            .await;
        assert_eq!((code, output.contains("400000")), (0, true), "{output}");
        let uid = |path: &str| std::os::unix::fs::MetadataExt::uid(&fs::metadata(path).unwrap());
        assert_eq!(uid(&format!("{upper}/new")), 400_000);
        assert_eq!(uid(&data.join("made").to_string_lossy()), 0);
        assert_eq!(uid(&format!("/proc/{}", started.pid)), 400_000);
    }
    pod.end().await;
}
