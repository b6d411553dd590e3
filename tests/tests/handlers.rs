//! Runtime handlers and their options.
#![allow(clippy::unwrap_used)]

use joey_proto::cri::*;
use joey_tests::{Stand, pod_security, security};

async fn run_pod(
    stand: &Stand,
    config: &PodSandboxConfig,
    handler: &str,
) -> Result<String, tonic::Status> {
    let request = RunPodSandboxRequest {
        config: Some(config.clone()),
        runtime_handler: handler.into(),
    };
    let reply = stand.client.runtime().run_pod_sandbox(request).await?;
    Ok(reply.into_inner().pod_sandbox_id)
}

#[tokio::test]
async fn privileged_containers_of_a_handler_may_lack_the_hosts_devices() {
    let toml = "[runtime.handlers.closed]\nprivileged_without_host_devices = true\n\
                [runtime.handlers.open]\n";
    let stand = Stand::start_with(toml).await;
    for (handler, nodes, opens) in [("closed", 0, false), ("open", 1, true)] {
        let mut config = stand.pod_config(handler);
        pod_security(&mut config).privileged = true;
        let pod = run_pod(&stand, &config, handler).await.unwrap();
        // Also the cgroup's rules: kmsg is none of the devices that every container has.
        let script = "ls /dev/kmsg 2>/dev/null | wc -l; mknod /tmp/kmsg c 1 11; \
                      if head -c 0 /tmp/kmsg; then echo opened; fi";
        let mut main = stand.container("main", &["sh", "-c", script]);
        security(&mut main).privileged = true;
        let (written, _) = stand.run_to_end(&pod, &main, &config).await;
        let mut wanted = format!("{nodes}\n");
        if opens {
            wanted += "opened\n";
        }
        let written: String = written
            .lines()
            .filter(|line| *line == "opened" || line.parse::<u32>().is_ok())
            .fold(String::new(), |text, line| text + line + "\n");
        assert_eq!(written, wanted, "{handler}");
        // What it asks for it has.
        let mut asks = stand.container("asks", &["ls", "/dev/kmsg"]);
        security(&mut asks).privileged = true;
        asks.devices = vec![Device {
            container_path: "/dev/kmsg".into(),
            host_path: "/dev/kmsg".into(),
            permissions: "r".into(),
        }];
        let (written, code) = stand.run_to_end(&pod, &asks, &config).await;
        assert_eq!((written.as_str(), code), ("/dev/kmsg\n", 0), "{handler}");
        stand.client.remove_pod(&pod).await;
    }
    let unknown = run_pod(&stand, &stand.pod_config("unknown"), "fast").await;
    let unknown = unknown.unwrap_err();
    assert!(unknown.message().contains("\"fast\""), "{unknown}");
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_handlers_pods_have_its_own_network() {
    let confs = tempfile::tempdir_in("/var/tmp").unwrap();
    let data = confs.path().join("ipam");
    let conf = serde_json::json!({
        "cniVersion": "1.0.0", "name": "fast",
        "plugins": [{
            "type": "ptp",
            "ipam": {
                "type": "host-local", "dataDir": data,
                "ranges": [[{ "subnet": "10.66.0.0/24" }]],
            },
        }],
    });
    let folder = confs.path().join("net.d");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("10-fast.conflist"), conf.to_string()).unwrap();
    let toml = format!(
        "[network]\nmode = \"builtin\"\n[runtime.handlers.fast]\ncni_conf_dir = {:?}\n",
        folder.to_str().unwrap()
    );
    let stand = Stand::start_with(&toml).await;
    let ip = async |pod: &str| {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: pod.into(),
            verbose: false,
        };
        let reply = stand.client.runtime().pod_sandbox_status(request).await;
        let status = reply.unwrap().into_inner().status.unwrap();
        status.network.unwrap().ip
    };
    let fast = run_pod(&stand, &stand.pod_config("a"), "fast")
        .await
        .unwrap();
    let other = run_pod(&stand, &stand.pod_config("b"), "").await.unwrap();
    assert!(ip(&fast).await.starts_with("10.66.0."));
    assert!(!ip(&other).await.starts_with("10.66.0."));
    stand.client.remove_pod(&fast).await;
    stand.client.remove_pod(&other).await;
    stand.assert_clean().await;
}
