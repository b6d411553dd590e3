//! Limits that change while a container or pod lives.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use joey_proto::cri::*;
use joey_tests::limits::{
    InForce, MIB, asked, bytes, content, given, group, in_force, is_v1, limited,
};
use joey_tests::{Stand, eventually};
use tonic::Code;

#[tokio::test]
async fn a_running_containers_limits_change_one_by_one_and_outlive_the_daemon() {
    let mut node = Stand::start().await;
    let config = node.pod_config("updates");
    let pod = node.client.run_pod(&config).await;
    let main = limited(node.sleeper("main"), asked());
    let id = node.client.run(&pod, &main, &config).await;
    let none = LinuxContainerResources::default;

    let quota = LinuxContainerResources {
        cpu_quota: 20_000,
        ..none()
    };
    node.update(&id, quota).await.unwrap();
    let wanted = InForce {
        quota: 20_000,
        ..given()
    };
    assert_eq!(in_force(&id), wanted);
    assert_eq!(node.told(&id).await.cpu_quota, 20_000);
    assert_eq!(node.told(&id).await.cpu_shares, 512);
    node.update(&id, none()).await.unwrap();
    assert_eq!(in_force(&id), wanted);

    // Up and down again, each beyond the other's old value, and swap stays none.
    for limit in [256 * MIB, 48 * MIB] {
        let memory = LinuxContainerResources {
            memory_limit_in_bytes: limit,
            cpu_shares: 2048,
            ..none()
        };
        node.update(&id, memory).await.unwrap();
        let seen = in_force(&id);
        assert_eq!((seen.memory, seen.total, seen.shares), (limit, limit, 2048));
        assert_eq!(node.told(&id).await.memory_limit_in_bytes, limit);
    }

    node.restart_after(|_| {}).await;
    let seen = node.told(&id).await;
    assert_eq!(
        (seen.memory_limit_in_bytes, seen.cpu_quota),
        (48 * MIB, 20_000)
    );
    let removed = LinuxContainerResources {
        cpu_quota: -1,
        memory_limit_in_bytes: -1,
        ..none()
    };
    node.update(&id, removed).await.unwrap();
    let seen = in_force(&id);
    assert_eq!((seen.quota, seen.memory, seen.total), (-1, -1, -1));
    assert_eq!((seen.shares, seen.cpus.as_str()), (2048, "0"));
    assert!(node.told(&id).await.memory_limit_in_bytes <= 0);
    assert!(node.told(&id).await.cpu_quota <= 0);

    node.client.stop(&id, 0).await;
    let error = node.update(&id, asked()).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    assert!(error.message().contains(&id), "{error}");
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn a_created_container_starts_with_its_updated_limits() {
    let mut node = Stand::start().await;
    let config = node.pod_config("created");
    let pod = node.client.run_pod(&config).await;
    let main = limited(node.sleeper("main"), asked());
    let id = node.client.create(&pod, &main, &config).await.unwrap();
    let change = LinuxContainerResources {
        cpu_shares: 1024,
        cpu_quota: -1,
        memory_limit_in_bytes: 80 * MIB,
        ..Default::default()
    };
    node.update(&id, change).await.unwrap();
    assert_eq!(node.told(&id).await.memory_limit_in_bytes, 80 * MIB);
    node.restart_after(|_| {}).await;
    node.client.start(&id).await.unwrap();
    let wanted = InForce {
        quota: -1,
        shares: 1024,
        memory: 80 * MIB,
        total: 80 * MIB,
        ..given()
    };
    assert_eq!(in_force(&id), wanted);
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn a_refused_update_changes_nothing() {
    let node = Stand::start().await;
    let config = node.pod_config("refused");
    let pod = node.client.run_pod(&config).await;
    let hold = "head -c 30000000 /dev/zero >/dev/shm/held; echo held; sleep 1000";
    let main = limited(node.container("main", &["sh", "-c", hold]), asked());
    let id = node.client.run(&pod, &main, &config).await;
    eventually("the memory is held", || async {
        let log = std::fs::read_to_string(node.log("refused", "main"));
        log.is_ok_and(|log| log.contains("held"))
    })
    .await;
    let none = LinuxContainerResources::default;
    let wrong = [
        // No such processor; the shares before it are taken back.
        LinuxContainerResources {
            cpu_shares: 2048,
            cpuset_cpus: "4000".into(),
            ..none()
        },
        LinuxContainerResources {
            cpu_shares: 2048,
            cpu_quota: 1,
            ..none()
        },
        // Swap alone below the memory limit.
        LinuxContainerResources {
            cpu_shares: 2048,
            memory_swap_limit_in_bytes: MIB,
            ..none()
        },
        LinuxContainerResources {
            cpu_shares: 2048,
            cpu_quota: -2,
            ..none()
        },
        LinuxContainerResources {
            cpu_shares: -1,
            ..none()
        },
    ];
    for resources in wrong {
        let error = node.update(&id, resources.clone()).await;
        let error = error.expect_err(&format!("{resources:?}"));
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert_eq!(in_force(&id), given(), "{resources:?}");
        assert_eq!(node.told(&id).await.cpu_shares, 512, "{resources:?}");
    }
    if is_v1() {
        // Below what is used and can't be reclaimed: v1 says EBUSY, nobody is killed.
        let less = LinuxContainerResources {
            memory_limit_in_bytes: 8 * MIB,
            ..none()
        };
        let error = node.update(&id, less).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
        assert!(error.message().contains("memory.limit_in_bytes"), "{error}");
        assert_eq!(in_force(&id), given());
        let running = node.client.status(&id).await;
        assert_eq!(running.state(), ContainerState::ContainerRunning);
    }
    let error = node.update("nobody", asked()).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn a_pods_resources_limit_its_own_group_and_leave_the_kubelets_alone() {
    let node = Stand::start().await;
    let config = node.pod_config("pod");
    let pod = node.client.run_pod(&config).await;
    node.client.run(&pod, &node.sleeper("main"), &config).await;
    let file = if is_v1() {
        "memory.limit_in_bytes"
    } else {
        "memory.max"
    };
    for memory in [200 * MIB, 100 * MIB] {
        node.limit_pod(&pod, memory).await.unwrap();
        assert_eq!(bytes(&content("memory", &pod, file)), memory);
    }
    node.limit_pod(&pod, 0).await.unwrap();
    assert_eq!(bytes(&content("memory", &pod, file)), 100 * MIB);
    node.limit_pod(&pod, -1).await.unwrap();
    assert_eq!(bytes(&content("memory", &pod, file)), -1);
    let error = node.limit_pod(&pod, -2).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    let error = node.limit_pod("nobody", MIB).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");

    // A parent that was given is the kubelet's to limit.
    if !Path::new("/run/systemd/system").exists() {
        let own = node.daemon.folder().file_name().unwrap().to_string_lossy();
        let mut config = node.pod_config("kubelet");
        config.linux.as_mut().unwrap().cgroup_parent = format!("/{own}/kubepods-{own}");
        let pod = node.client.run_pod(&config).await;
        let id = node.client.run(&pod, &node.sleeper("main"), &config).await;
        let before = group("memory", &id);
        node.limit_pod(&pod, 50 * MIB).await.unwrap();
        let parent = before.parent().unwrap();
        let seen = std::fs::read_to_string(parent.join(file)).unwrap();
        assert_eq!(bytes(seen.trim()), -1);
        node.client.remove_pod(&pod).await;
    }
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

/// Writes into a group behind the daemon's back.
fn overwrite(controller: &str, id: &str, file: &str, value: &str) {
    std::fs::write(group(controller, id).join(file), value).unwrap();
}

#[tokio::test]
async fn limits_that_somebody_else_wrote_are_made_right_again() {
    let mut node = Stand::start().await;
    let config = node.pod_config("restored");
    let pod = node.client.run_pod(&config).await;
    node.limit_pod(&pod, 300 * MIB).await.unwrap();
    let main = limited(node.sleeper("main"), asked());
    let id = node.client.run(&pod, &main, &config).await;
    let (limit, quota) = match is_v1() {
        true => ("memory.limit_in_bytes", "cpu.cfs_quota_us"),
        false => ("memory.max", "cpu.max"),
    };
    // Before there was a container the pod had no group to limit.
    assert_eq!(bytes(&content("memory", &pod, limit)), 300 * MIB);
    let change = LinuxContainerResources {
        cpu_quota: 20_000,
        ..Default::default()
    };
    node.update(&id, change).await.unwrap();
    let wanted = InForce {
        quota: 20_000,
        ..given()
    };
    overwrite("cpu", &id, quota, "70000");
    // Told as it is, not as it was asked for.
    assert_eq!(node.told(&id).await.cpu_quota, 70_000);
    node.restart_after(|_| {
        if is_v1() {
            overwrite("memory", &id, "memory.memsw.limit_in_bytes", "-1");
            overwrite("devices", &id, "devices.allow", "c 10:200 rwm");
        }
        overwrite("memory", &id, limit, &(500 * MIB).to_string());
        overwrite("memory", &pod, limit, &(600 * MIB).to_string());
        overwrite("pids", &id, "pids.max", "77");
    })
    .await;
    assert_eq!(in_force(&id), wanted);
    assert_eq!(bytes(&content("memory", &pod, limit)), 300 * MIB);
    if is_v1() {
        assert!(!content("devices", &id, "devices.list").contains("10:200"));
    }
    // What Joey was never asked for is not its to restore.
    assert_eq!(content("pids", &id, "pids.max"), "77");

    let resources = node.client.info(&id).await["resources"].clone();
    assert_eq!(resources["base"]["cpu_quota"], 50_000, "{resources}");
    let overlay = &resources["overlays"][0];
    assert_eq!(overlay["name"], "update", "{resources}");
    assert_eq!(overlay["reason"], "UpdateContainerResources", "{resources}");
    assert_eq!(overlay["resources"]["cpu_quota"], 20_000, "{resources}");
    assert_eq!(resources["inForce"]["cpu_quota"], 20_000, "{resources}");
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}
