//! Limits: what the kernel has of them, how they change, and what ends for want of memory.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use joey_proto::cri::*;
use joey_tests::{Stand, eventually, namespaces, pod_security};
use tonic::Code;

const MIB: i64 = 1 << 20;

/// Whether limits are in the files of cgroup v1.
fn is_v1() -> bool {
    !Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The folder of a container or pod in the hierarchy of a controller.
fn group(controller: &str, id: &str) -> PathBuf {
    let root = Path::new("/sys/fs/cgroup");
    let mut folders = vec![if is_v1() {
        root.join(controller)
    } else {
        root.to_owned()
    }];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy().contains(id) {
                return entry.path();
            }
            folders.push(entry.path());
        }
    }
    panic!("{id} has no group of {controller}");
}

fn content(controller: &str, id: &str, file: &str) -> String {
    let path = group(controller, id).join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    text.trim().to_owned()
}

/// What the kernel has, in CRI's terms; −1 is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
struct InForce {
    quota: i64,
    period: i64,
    shares: i64,
    cpus: String,
    memory: i64,
    /// Memory and swap together.
    total: i64,
}

fn number(text: &str) -> i64 {
    text.parse().unwrap_or(-1)
}

/// v1 says "no limit" by a huge number.
fn bytes(text: &str) -> i64 {
    Some(number(text)).filter(|it| *it < 1 << 60).unwrap_or(-1)
}

fn in_force(id: &str) -> InForce {
    if is_v1() {
        return InForce {
            quota: number(&content("cpu", id, "cpu.cfs_quota_us")),
            period: number(&content("cpu", id, "cpu.cfs_period_us")),
            shares: number(&content("cpu", id, "cpu.shares")),
            cpus: content("cpuset", id, "cpuset.cpus"),
            memory: bytes(&content("memory", id, "memory.limit_in_bytes")),
            total: bytes(&content("memory", id, "memory.memsw.limit_in_bytes")),
        };
    }
    let max = content("cpu", id, "cpu.max");
    let (quota, period) = max.split_once(' ').unwrap();
    let memory = number(&content("memory", id, "memory.max"));
    let swap = number(&content("memory", id, "memory.swap.max"));
    InForce {
        quota: number(quota),
        period: number(period),
        shares: shares_of(number(&content("cpu", id, "cpu.weight"))),
        cpus: content("cpuset", id, "cpuset.cpus.effective"),
        memory,
        total: if swap < 0 || memory < 0 {
            -1
        } else {
            memory + swap
        },
    }
}

/// The shares that these tests ask for, by their weights.
fn shares_of(weight: i64) -> i64 {
    match weight {
        59 => 512,
        100 => 1024,
        170 => 2048,
        other => other,
    }
}

fn asked() -> LinuxContainerResources {
    LinuxContainerResources {
        cpu_shares: 512,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        cpuset_cpus: "0".into(),
        cpuset_mems: "0".into(),
        memory_limit_in_bytes: 64 * MIB,
        ..Default::default()
    }
}

/// [`asked`] as the kernel has it.
fn given() -> InForce {
    InForce {
        quota: 50_000,
        period: 100_000,
        shares: 512,
        cpus: "0".into(),
        memory: 64 * MIB,
        // No swap unless it is asked for.
        total: 64 * MIB,
    }
}

fn limited(mut container: ContainerConfig, resources: LinuxContainerResources) -> ContainerConfig {
    container.linux.as_mut().unwrap().resources = Some(resources);
    container
}

async fn update(
    node: &Stand,
    id: &str,
    resources: LinuxContainerResources,
) -> Result<(), tonic::Status> {
    let request = UpdateContainerResourcesRequest {
        container_id: id.into(),
        linux: Some(resources),
        ..Default::default()
    };
    let mut runtime = node.client.runtime();
    runtime.update_container_resources(request).await.map(drop)
}

async fn told(node: &Stand, id: &str) -> LinuxContainerResources {
    let resources = node.client.status(id).await.resources.unwrap();
    resources.linux.unwrap()
}

async fn refusal(
    node: &Stand,
    pod: &str,
    container: &ContainerConfig,
    config: &PodSandboxConfig,
) -> tonic::Status {
    match node.client.create(pod, container, config).await {
        Ok(id) => node.client.start(&id).await.unwrap_err(),
        Err(error) => error,
    }
}

#[tokio::test]
async fn limits_are_the_kernels_and_the_statuss() {
    let node = Stand::start().await;
    let config = node.pod_config("limits");
    let pod = node.client.run_pod(&config).await;
    let all = limited(node.sleeper("all"), asked());
    let id = node.client.run(&pod, &all, &config).await;
    assert_eq!(in_force(&id), given());
    let seen = told(&node, &id).await;
    assert_eq!(
        LinuxContainerResources {
            memory_swap_limit_in_bytes: 0,
            ..seen
        },
        asked()
    );
    let command = ["sh", "-c", "nproc; grep Cpus_allowed_list /proc/1/status"];
    let (seen, err, _) = node.client.exec(&id, &command).await;
    assert_eq!(seen, "1\nCpus_allowed_list:\t0\n", "{err}");

    let swap = LinuxContainerResources {
        memory_limit_in_bytes: 32 * MIB,
        memory_swap_limit_in_bytes: 48 * MIB,
        ..Default::default()
    };
    let swap = limited(node.sleeper("swap"), swap);
    let id = node.client.run(&pod, &swap, &config).await;
    let seen = in_force(&id);
    assert_eq!((seen.memory, seen.total), (32 * MIB, 48 * MIB));

    let none = node.client.run(&pod, &node.sleeper("none"), &config).await;
    let seen = in_force(&none);
    assert_eq!((seen.quota, seen.memory), (-1, -1), "{seen:?}");
    assert_eq!(content("pids", &none, "pids.max"), "max");

    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn the_oom_score_is_what_is_asked_for_and_never_the_daemons() {
    let node = Stand::start().await;
    let config = node.pod_config("scores");
    let pod = node.client.run_pod(&config).await;
    let score = |value| LinuxContainerResources {
        oom_score_adj: value,
        ..Default::default()
    };
    let own: i64 = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", node.daemon.pid()))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    for (number, (resources, wanted)) in [
        (Some(score(500)), 500),
        (Some(score(1000)), 1000),
        (Some(score(0)), 0),
        // Lower than the daemon may give: what it has itself.
        (Some(score(-1000)), if own < 0 { -1000 } else { own }),
        (None, 0),
    ]
    .into_iter()
    .enumerate()
    {
        let mut container = node.sleeper(&format!("c{number}"));
        container.linux.as_mut().unwrap().resources = resources;
        let id = node.client.run(&pod, &container, &config).await;
        let read = ["cat", "/proc/1/oom_score_adj", "/proc/self/oom_score_adj"];
        let (seen, err, _) = node.client.exec(&id, &read).await;
        assert_eq!(seen, format!("{wanted}\n{wanted}\n"), "case {number} {err}");
    }
    for value in [1001, -1001, i64::MAX] {
        let container = limited(node.sleeper("wrong"), score(value));
        let error = refusal(&node, &pod, &container, &config).await;
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().contains(&value.to_string()), "{error}");
    }
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

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
    update(&node, &id, quota).await.unwrap();
    let wanted = InForce {
        quota: 20_000,
        ..given()
    };
    assert_eq!(in_force(&id), wanted);
    assert_eq!(told(&node, &id).await.cpu_quota, 20_000);
    assert_eq!(told(&node, &id).await.cpu_shares, 512);
    update(&node, &id, none()).await.unwrap();
    assert_eq!(in_force(&id), wanted);

    // Up and down again, each beyond the other's old value, and swap stays none.
    for limit in [256 * MIB, 48 * MIB] {
        let memory = LinuxContainerResources {
            memory_limit_in_bytes: limit,
            cpu_shares: 2048,
            ..none()
        };
        update(&node, &id, memory).await.unwrap();
        let seen = in_force(&id);
        assert_eq!((seen.memory, seen.total, seen.shares), (limit, limit, 2048));
        assert_eq!(told(&node, &id).await.memory_limit_in_bytes, limit);
    }

    node.restart_after(|_| {}).await;
    let seen = told(&node, &id).await;
    assert_eq!(
        (seen.memory_limit_in_bytes, seen.cpu_quota),
        (48 * MIB, 20_000)
    );
    let removed = LinuxContainerResources {
        cpu_quota: -1,
        memory_limit_in_bytes: -1,
        ..none()
    };
    update(&node, &id, removed).await.unwrap();
    let seen = in_force(&id);
    assert_eq!((seen.quota, seen.memory, seen.total), (-1, -1, -1));
    assert_eq!((seen.shares, seen.cpus.as_str()), (2048, "0"));
    assert!(told(&node, &id).await.memory_limit_in_bytes <= 0);
    assert!(told(&node, &id).await.cpu_quota <= 0);

    node.client.stop(&id, 0).await;
    let error = update(&node, &id, asked()).await.unwrap_err();
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
    update(&node, &id, change).await.unwrap();
    assert_eq!(told(&node, &id).await.memory_limit_in_bytes, 80 * MIB);
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
        let error = update(&node, &id, resources.clone()).await;
        let error = error.expect_err(&format!("{resources:?}"));
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert_eq!(in_force(&id), given(), "{resources:?}");
        assert_eq!(told(&node, &id).await.cpu_shares, 512, "{resources:?}");
    }
    if is_v1() {
        // Below what is used and can't be reclaimed: v1 says EBUSY, nobody is killed.
        let less = LinuxContainerResources {
            memory_limit_in_bytes: 8 * MIB,
            ..none()
        };
        let error = update(&node, &id, less).await.unwrap_err();
        assert!(error.message().contains("memory.limit_in_bytes"), "{error}");
        assert_eq!(in_force(&id), given());
        let running = node.client.status(&id).await;
        assert_eq!(running.state(), ContainerState::ContainerRunning);
    }
    let error = update(&node, "nobody", asked()).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn values_that_can_not_be_are_refused_and_the_name_stays_free() {
    let node = Stand::start().await;
    let config = node.pod_config("values");
    let pod = node.client.run_pod(&config).await;
    let none = LinuxContainerResources::default;
    let pages = |size: &str| LinuxContainerResources {
        hugepage_limits: vec![HugepageLimit {
            page_size: size.into(),
            limit: 0,
        }],
        ..none()
    };
    let cases = [
        (
            LinuxContainerResources {
                cpu_shares: -1,
                ..none()
            },
            "cpu_shares",
        ),
        (
            LinuxContainerResources {
                cpu_quota: -2,
                ..none()
            },
            "cpu_quota",
        ),
        (
            LinuxContainerResources {
                cpu_quota: 1,
                ..none()
            },
            "cpu",
        ),
        (
            LinuxContainerResources {
                cpu_period: -5,
                ..none()
            },
            "cpu_period",
        ),
        (
            LinuxContainerResources {
                cpu_period: 7,
                ..none()
            },
            "cpu",
        ),
        (
            LinuxContainerResources {
                memory_limit_in_bytes: -7,
                ..none()
            },
            "memory_limit_in_bytes",
        ),
        (
            LinuxContainerResources {
                memory_limit_in_bytes: 64 * MIB,
                memory_swap_limit_in_bytes: 32 * MIB,
                ..none()
            },
            "memory and swap",
        ),
        (
            LinuxContainerResources {
                cpuset_cpus: "x".into(),
                ..none()
            },
            "cpuset.cpus",
        ),
        (
            LinuxContainerResources {
                cpuset_cpus: "4000".into(),
                ..none()
            },
            "cpuset.cpus",
        ),
        (
            LinuxContainerResources {
                cpuset_mems: "63".into(),
                ..none()
            },
            "cpuset.mems",
        ),
        (pages("2"), "page size"),
        (pages("../2MB"), "page size"),
    ];
    for (resources, named) in cases {
        let container = limited(node.sleeper("main"), resources.clone());
        let error = refusal(&node, &pod, &container, &config).await;
        assert_eq!(
            error.code(),
            Code::InvalidArgument,
            "{resources:?}: {error}"
        );
        assert!(error.message().contains(named), "{error}");
        let mut runtime = node.client.runtime();
        let left = runtime.list_containers(ListContainersRequest::default());
        for container in left.await.unwrap().into_inner().containers {
            assert_eq!(container.state(), ContainerState::ContainerExited);
            node.client.remove(&container.id).await;
        }
    }
    let container = limited(node.sleeper("main"), asked());
    node.client.run(&pod, &container, &config).await;
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn unified_limits_need_cgroup_v2() {
    let node = Stand::start().await;
    let config = node.pod_config("unified");
    let pod = node.client.run_pod(&config).await;
    let unified = |key: &str, value: &str| LinuxContainerResources {
        unified: [(key.to_owned(), value.to_owned())].into(),
        ..Default::default()
    };
    if !is_v1() {
        let high = limited(node.sleeper("high"), unified("memory.high", "33554432"));
        let id = node.client.run(&pod, &high, &config).await;
        assert_eq!(content("memory", &id, "memory.high"), "33554432");
        let bad = limited(node.sleeper("bad"), unified("../memory.high", "1"));
        let error = node.client.create(&pod, &bad, &config).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    } else {
        let refused = |error: tonic::Status| {
            assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
            assert!(error.message().contains("memory.high"), "{error}");
            assert!(error.message().contains("cgroup v2"), "{error}");
        };
        let high = limited(node.sleeper("main"), unified("memory.high", "33554432"));
        refused(node.client.create(&pod, &high, &config).await.unwrap_err());
        let id = node
            .client
            .create(&pod, &node.sleeper("main"), &config)
            .await;
        let id = id.unwrap();
        let change = || update(&node, &id, unified("memory.high", "33554432"));
        refused(change().await.unwrap_err());
        node.client.start(&id).await.unwrap();
        refused(change().await.unwrap_err());
        assert!(told(&node, &id).await.unified.is_empty());
    }
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn huge_page_limits_are_set_where_the_kernel_has_them() {
    let node = Stand::start().await;
    let config = node.pod_config("pages");
    let pod = node.client.run_pod(&config).await;
    let pages = |size: &str, limit| HugepageLimit {
        page_size: size.into(),
        limit,
    };
    let resources = LinuxContainerResources {
        hugepage_limits: vec![pages("2MB", 4 << 20), pages("1GB", 0)],
        ..Default::default()
    };
    let main = limited(node.sleeper("main"), resources);
    let id = node.client.run(&pod, &main, &config).await;
    let change = LinuxContainerResources {
        hugepage_limits: vec![pages("2MB", 6 << 20)],
        ..Default::default()
    };
    update(&node, &id, change).await.unwrap();
    let mut seen = told(&node, &id).await.hugepage_limits;
    seen.sort_by_key(|pages| pages.page_size.clone());
    assert_eq!(seen, [pages("1GB", 0), pages("2MB", 6 << 20)]);
    let folder = Path::new("/sys/fs/cgroup/hugetlb");
    if folder.exists() || !is_v1() {
        let file = |size| match is_v1() {
            true => format!("hugetlb.{size}.limit_in_bytes"),
            false => format!("hugetlb.{size}.max"),
        };
        assert_eq!(content("hugetlb", &id, &file("2MB")), (6 << 20).to_string());
        assert_eq!(content("hugetlb", &id, &file("1GB")), "0");
    }
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn a_pods_resources_limit_its_own_group_and_leave_the_kubelets_alone() {
    let node = Stand::start().await;
    let config = node.pod_config("pod");
    let pod = node.client.run_pod(&config).await;
    node.client.run(&pod, &node.sleeper("main"), &config).await;
    let resources = |memory| LinuxContainerResources {
        memory_limit_in_bytes: memory,
        ..Default::default()
    };
    let update = |id: &str, memory| {
        let request = UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: id.into(),
            overhead: None,
            resources: Some(resources(memory)),
        };
        let mut runtime = node.client.runtime();
        async move {
            runtime
                .update_pod_sandbox_resources(request)
                .await
                .map(drop)
        }
    };
    let file = if is_v1() {
        "memory.limit_in_bytes"
    } else {
        "memory.max"
    };
    for memory in [200 * MIB, 100 * MIB] {
        update(&pod, memory).await.unwrap();
        assert_eq!(bytes(&content("memory", &pod, file)), memory);
    }
    update(&pod, 0).await.unwrap();
    assert_eq!(bytes(&content("memory", &pod, file)), 100 * MIB);
    update(&pod, -1).await.unwrap();
    assert_eq!(bytes(&content("memory", &pod, file)), -1);
    let error = update(&pod, -2).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    let error = update("nobody", MIB).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");

    // A parent that was given is the kubelet's to limit.
    if !Path::new("/run/systemd/system").exists() {
        let own = node.daemon.folder().file_name().unwrap().to_string_lossy();
        let mut config = node.pod_config("kubelet");
        config.linux.as_mut().unwrap().cgroup_parent = format!("/{own}/kubepods-{own}");
        let pod = node.client.run_pod(&config).await;
        let id = node.client.run(&pod, &node.sleeper("main"), &config).await;
        let before = group("memory", &id);
        update(&pod, 50 * MIB).await.unwrap();
        let parent = before.parent().unwrap();
        let seen = std::fs::read_to_string(parent.join(file)).unwrap();
        assert_eq!(bytes(seen.trim()), -1);
        node.client.remove_pod(&pod).await;
    }
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

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

/// Opens a file for reading, then for writing.
fn open(path: &str) -> String {
    format!(
        "(exec 3<{path}) 2>&1 | sed 's/.*: //'; echo read; (exec 3>{path}) 2>&1 | sed 's/.*: //'; \
         echo write"
    )
}

fn device(host: &str, container: &str, permissions: &str) -> Device {
    Device {
        host_path: host.into(),
        container_path: container.into(),
        permissions: permissions.into(),
    }
}

#[tokio::test]
async fn devices_are_there_with_their_permissions_and_no_others() {
    let node = Stand::start().await;
    let config = node.pod_config("devices");
    let pod = node.client.run_pod(&config).await;
    let fuse = rustix::fs::stat("/dev/fuse").unwrap().st_rdev;
    let (major, minor) = (rustix::fs::major(fuse), rustix::fs::minor(fuse));
    let refused = "Operation not permitted\n";
    let cases = [
        ("rw", "/dev/fuse", "read\nwrite\n".to_owned()),
        ("r", "/dev/mine", format!("read\n{refused}write\n")),
        ("w", "/dev/deep/mine", format!("{refused}read\nwrite\n")),
        ("rwm", "/opt/mine", "read\nwrite\n".to_owned()),
    ];
    for (permissions, path, wanted) in cases {
        let mut container = node.container(permissions, &["sh", "-c", &open(path)]);
        container.devices = vec![device("/dev/fuse", path, permissions)];
        let (seen, _) = node.run_to_end(&pod, &container, &config).await;
        assert_eq!(seen, wanted, "{permissions}");
    }
    let script = format!(
        "ls /dev/fuse 2>/dev/null; mknod /dev/fuse c {major} {minor} && {}",
        open("/dev/fuse")
    );
    let container = node.container("none", &["sh", "-c", &script]);
    let (seen, _) = node.run_to_end(&pod, &container, &config).await;
    assert_eq!(seen, format!("{refused}read\n{refused}write\n"));

    // A folder stands for every device in it.
    let mut container = node.container("folder", &["ls", "/dev/all"]);
    container.devices = vec![device("/dev/net", "/dev/all", "")];
    let (seen, _) = node.run_to_end(&pod, &container, &config).await;
    assert_eq!(seen, "tun\n");

    for (wrong, named) in [
        (
            device("/dev/no-such-device", "/dev/x", "r"),
            "/dev/no-such-device",
        ),
        (device("/etc/passwd", "/dev/x", "r"), "/etc/passwd"),
        (device("/dev/fuse", "/dev/x", "rx"), "'x'"),
        (device("", "/dev/x", "r"), "host_path"),
    ] {
        let mut container = node.sleeper("wrong");
        container.devices = vec![wrong];
        let error = node
            .client
            .create(&pod, &container, &config)
            .await
            .unwrap_err();
        assert!(error.message().contains(named), "{error}");
        assert_ne!(error.code(), Code::NotFound, "{error}");
    }
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn devices_of_a_pod_with_mapped_ids_are_the_ones_asked_for() {
    let node = Stand::start().await;
    let mapping = vec![IdMapping {
        host_id: 300_000,
        container_id: 0,
        length: 65_536,
    }];
    let mapped = UserNamespace {
        mode: NamespaceMode::Pod.into(),
        uids: mapping.clone(),
        gids: mapping,
    };
    let mut config = node.pod_config("mapped");
    let options = pod_security(&mut config).namespace_options.as_mut();
    options.unwrap().userns_options = Some(mapped.clone());
    let pod = node.client.run_pod(&config).await;
    // The name inside is another device's outside.
    let script = "stat -c %t:%T /dev/full2 /dev/random; head -c 1 /dev/random | wc -c";
    let mut container = node.container("main", &["sh", "-c", script]);
    namespaces(&mut container).userns_options = Some(mapped);
    container.devices = vec![
        device("/dev/full", "/dev/full2", "rw"),
        device("/dev/zero", "/dev/random", "rw"),
    ];
    let (seen, _) = node.run_to_end(&pod, &container, &config).await;
    assert_eq!(seen, "1:7\n1:5\n1\n");
    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

/// A file in a folder that the whole node watches; gone with the test.
struct Described(PathBuf);

impl Described {
    fn new(name: &str, text: &str) -> Self {
        let folder = Path::new("/var/run/cdi");
        std::fs::create_dir_all(folder).unwrap();
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Described {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

#[tokio::test]
async fn described_devices_bring_their_edits() {
    let node = Stand::start().await;
    let config = node.pod_config("cdi");
    let pod = node.client.run_pod(&config).await;
    let volume = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::write(volume.path().join("driver"), "driver").unwrap();
    let kind = format!("joey{}.test/card", std::process::id());
    let spec = serde_json::json!({
        "cdiVersion": "0.6.0",
        "kind": kind,
        "containerEdits": { "env": ["ALL_CARDS=yes"] },
        "devices": [
            { "name": "0", "containerEdits": {
                "env": ["CARD=0"],
                "deviceNodes": [
                    { "path": "/dev/card0", "hostPath": "/dev/fuse", "permissions": "r" }
                ],
                "mounts": [{
                    "hostPath": volume.path(), "containerPath": "/driver", "options": ["ro"],
                }],
                "additionalGids": [4321],
                "hooks": [{
                    "hookName": "createContainer", "path": "/bin/sh",
                    "args": ["sh", "-c", format!("touch {}/hooked", volume.path().display())],
                }],
            } },
            { "name": "1", "containerEdits": { "env": ["SECOND=1"] } },
        ],
    });
    let file = format!("joey-{}.json", std::process::id());
    let described = Described::new(&file, &spec.to_string());
    let _broken = Described::new(&format!("broken-{file}"), "{");
    let script = format!(
        "{}; echo $ALL_CARDS $CARD $SECOND; cat /driver/driver; echo; id -G; \
         echo x 2>/dev/null >/driver/new || echo readonly",
        open("/dev/card0")
    );
    let mut container = node.container("main", &["sh", "-c", &script]);
    container.cdi_devices = vec![CdiDevice {
        name: format!("{kind}=0"),
    }];
    let annotated = ("cdi.k8s.io/second".to_owned(), format!("{kind}=1"));
    container.annotations.extend([annotated]);
    let (seen, _) = node.run_to_end(&pod, &container, &config).await;
    assert_eq!(
        seen,
        "read\nOperation not permitted\nwrite\nyes 0 1\ndriver\n0 4321\nreadonly\n"
    );
    assert!(volume.path().join("hooked").exists());

    for (name, code) in [
        (format!("{kind}=7"), Code::InvalidArgument),
        ("card=0".to_owned(), Code::InvalidArgument),
    ] {
        let mut container = node.sleeper("unknown");
        container.cdi_devices = vec![CdiDevice { name: name.clone() }];
        let error = node
            .client
            .create(&pod, &container, &config)
            .await
            .unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(&name), "{error}");
    }
    // What is added later is seen, what is taken away is missed.
    drop(described);
    container.metadata.as_mut().unwrap().name = "late".into();
    let error = node
        .client
        .create(&pod, &container, &config)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");

    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}
