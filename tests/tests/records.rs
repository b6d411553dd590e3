//! Bad records, and records of another boot.
#![allow(clippy::unwrap_used)]

use joey_proto::cri::*;
use joey_tests::{Daemon, Stand};

fn record(daemon: &Daemon, kind: &str, id: &str) -> std::path::PathBuf {
    daemon.root().join(kind).join(format!("{id}.json"))
}

/// Whether a process with these arguments is on the node.
fn runs(arguments: &str) -> bool {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .any(|line| line == arguments.as_bytes())
}

/// Kills a pod's shim and its containers' processes, as a power cut does.
fn end_all_of(pod: &str) {
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let names = [read("cmdline"), read("cgroup")].concat();
        if let Some(pid) = rustix::process::Pid::from_raw(pid)
            && String::from_utf8_lossy(&names).contains(pod)
        {
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

fn quarantined(daemon: &Daemon) -> usize {
    let folder = std::fs::read_dir(daemon.root().join("quarantine"));
    folder.unwrap().count()
}

#[tokio::test]
async fn a_pod_with_a_bad_record_does_not_run_unseen_and_others_go_on() {
    let mut stand = Stand::start().await;
    let (bad, good) = (stand.pod_config("bad"), stand.pod_config("good"));
    let bad_pod = stand.client.run_pod(&bad).await;
    let lost = stand.container("main", &["sleep", "98761"]);
    stand.client.run(&bad_pod, &lost, &bad).await;
    let good_pod = stand.client.run_pod(&good).await;
    let kept = stand.sleeper("main");
    let kept = stand.client.run(&good_pod, &kept, &good).await;
    assert!(runs("sleep\098761\0"));

    stand
        .restart_after(|daemon| {
            std::fs::write(record(daemon, "pods", &bad_pod), "{ torn").unwrap();
        })
        .await;
    let status = stand.client.status(&kept).await;
    assert_eq!(status.state(), ContainerState::ContainerRunning);
    assert_eq!(quarantined(&stand.daemon), 1);
    assert!(stand.daemon.log().contains(&bad_pod), "it is named");
    let mut runtime = stand.client.runtime();
    let listed = runtime.list_pod_sandbox(ListPodSandboxRequest::default());
    let listed = listed.await.unwrap().into_inner().items;
    if !listed.iter().any(|pod| pod.id == bad_pod) {
        joey_tests::eventually("the lost pod is stopped", || async {
            !runs("sleep\098761\0")
        })
        .await;
    }
    let again = stand.client.run_pod(&bad).await;
    let lost = stand.client.run(&again, &lost, &bad).await;
    stand.client.stop(&lost, 0).await;

    for pod in [&bad_pod, &again, &good_pod] {
        stand.client.remove_pod(pod).await;
    }
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_container_with_a_bad_record_does_not_run_unseen_and_its_pod_goes_on() {
    let mut stand = Stand::start().await;
    let config = stand.pod_config("mixed");
    let pod = stand.client.run_pod(&config).await;
    let lost = stand.container("lost", &["sleep", "98762"]);
    let lost = stand.client.run(&pod, &lost, &config).await;
    let kept = stand.sleeper("kept");
    let kept = stand.client.run(&pod, &kept, &config).await;

    stand
        .restart_after(|daemon| {
            std::fs::write(record(daemon, "containers", &lost), "").unwrap();
        })
        .await;
    let status = stand.client.status(&kept).await;
    assert_eq!(status.state(), ContainerState::ContainerRunning);
    assert!(stand.daemon.log().contains(&lost), "it is named");
    let mut runtime = stand.client.runtime();
    let listed = runtime.list_containers(ListContainersRequest::default());
    let listed = listed.await.unwrap().into_inner().containers;
    if !listed.iter().any(|container| container.id == lost) {
        joey_tests::eventually("the lost container is stopped", || async {
            !runs("sleep\098762\0")
        })
        .await;
    }

    stand.client.remove_pod(&pod).await;
    stand.assert_clean().await;
}

#[tokio::test]
async fn after_a_reboot_pods_are_not_ready_and_containers_ended_until_they_are_removed() {
    let mut stand = Stand::start().await;
    let config = stand.pod_config("rebooted");
    let pod = stand.client.run_pod(&config).await;
    let running = stand.sleeper("running");
    let running = stand.client.run(&pod, &running, &config).await;
    let done = stand.container("done", &["sh", "-c", "exit 3"]);
    let done = stand.client.run(&pod, &done, &config).await;
    stand.client.ended(&done).await;

    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let other = "00000000-0000-4000-8000-000000000000";
    for _ in 0..2 {
        stand
            .restart_after(|daemon| {
                let path = record(daemon, "pods", &pod);
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(text.contains(boot.trim()), "{text}");
                std::fs::write(&path, text.replace(boot.trim(), other)).unwrap();
                end_all_of(&pod);
            })
            .await;
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: pod.clone(),
            verbose: false,
        };
        let mut runtime = stand.client.runtime();
        let status = runtime.pod_sandbox_status(request).await.unwrap();
        let status = status.into_inner().status.unwrap();
        assert_eq!(status.state(), PodSandboxState::SandboxNotready);
        let ended = stand.client.status(&running).await;
        assert_eq!(ended.state(), ContainerState::ContainerExited);
        assert_ne!(ended.exit_code, 0);
        let ended = stand.client.status(&done).await;
        assert_eq!(ended.exit_code, 3, "what ended before keeps its code");
    }
    stand.client.remove_pod(&pod).await;
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_bad_hold_takes_no_layers_of_a_running_container() {
    let mut stand = Stand::start().await;
    let image = stand
        .image("held", |image| image.file("only", 0o644, b"here"))
        .await;
    let config = stand.pod_config("held");
    let pod = stand.client.run_pod(&config).await;
    let container = joey_tests::container_spec("main", &image, &["sleep", "1000"]);
    let id = stand.client.run(&pod, &container, &config).await;
    let request = RemoveImageRequest {
        image: Some(ImageSpec {
            image,
            ..Default::default()
        }),
    };
    stand.client.images().remove_image(request).await.unwrap();
    for _ in 0..2 {
        stand
            .restart_after(|daemon| {
                let holds = daemon.root().join("images/holds");
                for hold in std::fs::read_dir(holds).unwrap().flatten() {
                    std::fs::write(hold.path(), "{ torn").unwrap();
                }
            })
            .await;
        // The page cache would still answer: what is on disk counts.
        let layers = stand.daemon.root().join("images/layers");
        let files = std::fs::read_dir(layers).unwrap().flatten();
        assert!(
            files
                .map(|layer| layer.path().join("fs/only"))
                .any(|file| file.exists())
        );
        let (text, err, _) = stand.client.exec(&id, &["cat", "/only"]).await;
        assert_eq!(text, "here", "{err}");
    }
    stand.client.remove_pod(&pod).await;
    let layers = stand.daemon.root().join("images/layers");
    joey_tests::eventually("the layers go with the container", || async {
        let mut files = std::fs::read_dir(&layers).unwrap().flatten();
        !files.any(|layer| layer.path().join("fs/only").exists())
    })
    .await;
    stand.assert_clean().await;
}
