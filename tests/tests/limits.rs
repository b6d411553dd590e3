//! Limits that a container starts with: what the kernel has of them, and which are refused.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use joey_proto::cri::*;
use joey_tests::Stand;
use joey_tests::limits::{MIB, asked, content, given, in_force, is_v1, limited};
use tonic::Code;

#[tokio::test]
async fn limits_are_the_kernels_and_the_statuss() {
    let node = Stand::start().await;
    let config = node.pod_config("limits");
    let pod = node.client.run_pod(&config).await;
    let all = limited(node.sleeper("all"), asked());
    let id = node.client.run(&pod, &all, &config).await;
    assert_eq!(in_force(&id), given());
    let seen = node.told(&id).await;
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
    // No swap without a limit either.
    match is_v1() {
        true => assert_eq!(content("memory", &none, "memory.swappiness"), "0"),
        false => assert_eq!(content("memory", &none, "memory.swap.max"), "0"),
    }
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
        let error = node.refusal(&pod, &container, &config).await;
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().contains(&value.to_string()), "{error}");
    }
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
        let error = node.refusal(&pod, &container, &config).await;
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
        let change = || node.update(&id, unified("memory.high", "33554432"));
        refused(change().await.unwrap_err());
        node.client.start(&id).await.unwrap();
        refused(change().await.unwrap_err());
        assert!(node.told(&id).await.unified.is_empty());
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
    node.update(&id, change).await.unwrap();
    let mut seen = node.told(&id).await.hugepage_limits;
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
