//! What ends for want of memory.
#![allow(clippy::unwrap_used)]

use joey_proto::cri::*;
use joey_tests::limits::{MIB, limited};
use joey_tests::{Stand, eventually};

#[tokio::test]
async fn the_end_by_memory_is_told_where_it_ended_the_container() {
    let node = Stand::start().await;
    let config = node.pod_config("memory");
    let pod = node.client.run_pod(&config).await;
    let cases = [
        ("exec tail /dev/zero", 137, "OOMKilled"),
        ("tail /dev/zero; exit $?", 137, "OOMKilled"),
        // The container's own answer to its child's end.
        ("tail /dev/zero; exit 0", 0, "Completed"),
        ("tail /dev/zero; exit 3", 3, "Error"),
        // Killed, but for no want of memory.
        ("sleep 1000", 137, "Error"),
        ("exit 137", 137, "Error"),
    ];
    for (number, (script, code, reason)) in cases.into_iter().enumerate() {
        let resources = LinuxContainerResources {
            memory_limit_in_bytes: 32 * MIB,
            ..Default::default()
        };
        let command = ["sh", "-c", script];
        let container = node.container(&format!("c{number}"), &command);
        let id = node
            .client
            .run(&pod, &limited(container, resources), &config)
            .await;
        if script.starts_with("sleep") {
            node.client.stop(&id, 0).await;
        }
        let status = node.client.ended(&id).await;
        assert_eq!(
            (status.exit_code, &*status.reason),
            (code, reason),
            "{script}"
        );
        assert_eq!(status.message.is_empty(), reason != "OOMKilled", "{script}");
    }
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

fn with_memory(container: ContainerConfig, bytes: i64) -> ContainerConfig {
    let resources = LinuxContainerResources {
        memory_limit_in_bytes: bytes,
        ..Default::default()
    };
    limited(container, resources)
}

#[tokio::test]
async fn the_verbose_status_names_the_group_and_the_process() {
    let node = Stand::start().await;
    let config = node.pod_config("evidence");
    let pod = node.client.run_pod(&config).await;
    for (name, script, init) in [
        ("init", "exec tail /dev/zero", true),
        ("child", "tail /dev/zero; exit $?", false),
    ] {
        let container = node.container(name, &["sh", "-c", script]);
        let container = with_memory(container, 32 * MIB);
        let id = node.client.run(&pod, &container, &config).await;
        let status = node.client.ended(&id).await;
        assert!(status.message.contains("33554432"), "{}", status.message);
        assert!(status.message.contains("tail"), "{}", status.message);
        let exit = node.client.info(&id).await["exit"].clone();
        let oom = &exit["oom"];
        assert_eq!(oom["group"], "container", "{exit}");
        assert!(oom["path"].as_str().unwrap().contains(&id), "{exit}");
        assert_eq!(oom["limit"], 32 * MIB, "{exit}");
        assert!(oom["usage"].as_i64().unwrap() > 31 * MIB, "{exit}");
        assert_eq!(oom["victims"][0]["name"], "tail", "{exit}");
        assert_eq!(oom["victims"][0]["init"], init, "{exit}");
        assert_eq!(
            (&oom["kills_before"], &oom["kills_after"]),
            (&0.into(), &1.into())
        );
    }
    // Outlived by its container, which then was killed for another reason.
    let script = "tail /dev/zero; echo outlived; sleep 1000";
    let container = node.container("outlived", &["sh", "-c", script]);
    let container = with_memory(container, 32 * MIB);
    let id = node.client.run(&pod, &container, &config).await;
    eventually("its child is killed", || async {
        let log = std::fs::read_to_string(node.log("evidence", "outlived"));
        log.is_ok_and(|log| log.contains("outlived"))
    })
    .await;
    node.client.stop(&id, 0).await;
    let status = node.client.ended(&id).await;
    assert_eq!((status.exit_code, &*status.reason), (137, "Error"));
    assert_eq!(status.message, "");
    let exit = node.client.info(&id).await["exit"].clone();
    assert_eq!(exit["cause"]["Signal"], 9, "{exit}");
    assert_eq!(exit["asked"]["by"], "kubelet", "{exit}");
    assert_eq!(exit["oom"]["victims"][0]["init"], false, "{exit}");
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn a_pods_limit_is_told_from_the_containers() {
    let node = Stand::start().await;
    let config = node.pod_config("pod");
    let pod = node.client.run_pod(&config).await;
    node.limit_pod(&pod, 32 * MIB).await.unwrap();
    let container = node.container("main", &["tail", "/dev/zero"]);
    let id = node.client.run(&pod, &container, &config).await;
    let status = node.client.ended(&id).await;
    assert_eq!(status.reason, "OOMKilled", "{status:?}");
    assert!(
        status.message.contains("the pod's memory limit"),
        "{status:?}"
    );
    let exit = node.client.info(&id).await["exit"].clone();
    assert_eq!(exit["oom"]["group"], "pod", "{exit}");
    assert_eq!(exit["oom"]["limit"], 32 * MIB, "{exit}");
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}
