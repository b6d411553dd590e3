//! Why a container ended: who asked for it, and what else ended it.
#![allow(clippy::unwrap_used)]

use joey_proto::cri::*;
use joey_tests::Stand;
use rustix::process::{Pid, Signal, kill_process};

#[tokio::test]
async fn an_end_tells_who_asked_for_it_also_across_a_killed_daemon() {
    let mut node = Stand::start().await;
    let config = node.pod_config("asked");
    let pod = node.client.run_pod(&config).await;

    // By nobody.
    let own = node.container("own", &["sh", "-c", "exit 3"]);
    let own = node.client.run(&pod, &own, &config).await;
    let status = node.client.ended(&own).await;
    assert_eq!((&*status.reason, &*status.message), ("Error", ""));
    let info = node.client.info(&own).await;
    assert_eq!(info["exit"]["cause"], "Exit", "{info}");
    assert!(info["exit"]["asked"].is_null(), "{info}");

    // From outside.
    let outside = node
        .client
        .run(&pod, &node.sleeper("outside"), &config)
        .await;
    let pid = node.client.info(&outside).await["pid"].as_i64().unwrap();
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    let status = node.client.ended(&outside).await;
    assert_eq!((&*status.reason, &*status.message), ("Error", ""));
    let info = node.client.info(&outside).await;
    assert_eq!(info["exit"]["cause"]["Signal"], 9, "{info}");
    let reason = "ended by signal 9, not sent by Joey";
    assert_eq!(info["exitReason"], reason, "{info}");

    // By the kubelet; it heeds its stop signal only while no daemon is there.
    let script = "trap 'echo told; sleep 2; exit 7' TERM; while :; do sleep 0.1; done";
    let slow = node.container("slow", &["sh", "-c", script]);
    let slow = node.client.run(&pod, &slow, &config).await;
    let mut runtime = node.client.runtime();
    let id = slow.clone();
    let stop = tokio::spawn(async move {
        let request = StopContainerRequest {
            container_id: id,
            timeout: 60,
        };
        drop(runtime.stop_container(request).await);
    });
    // It is noted before the signal is sent.
    let log = node.client.status(&slow).await.log_path;
    joey_tests::eventually("the stop signal has arrived", || async {
        std::fs::read_to_string(&log).is_ok_and(|log| log.contains("told"))
    })
    .await;
    node.restart_after(|_| {}).await;
    stop.abort();
    let status = node.client.ended(&slow).await;
    assert_eq!((status.exit_code, &*status.message), (7, ""));
    let info = node.client.info(&slow).await;
    assert_eq!(info["exit"]["asked"]["by"], "kubelet", "{info}");
    assert_eq!(info["exit"]["asked"]["signal"], 15, "{info}");
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn inspect_tells_what_the_user_asked_for() {
    let node = Stand::start().await;
    let image = node.image_name.as_str();
    node.out(&["run", "-d", "--name", "mine", image, "sleep", "1000"]);
    node.out(&["kill", "mine"]);
    let shown: serde_json::Value = serde_json::from_str(&node.out(&["inspect", "mine"])).unwrap();
    let state = &shown[0]["State"];
    assert_eq!(state["ExitCode"], 137, "{state}");
    assert_eq!(state["End"]["asked"]["by"], "user", "{state}");
    let reason = "ended by signal 9, asked for by the user";
    assert_eq!(state["Error"], reason, "{state}");
    node.out(&["rm", "mine"]);
    node.assert_clean().await;
}
