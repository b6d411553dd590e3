//! Statistics, pod metrics, and lists as streams.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use joey_proto::cri::*;
use joey_tests::{Stand, container_spec, eventually};
use tokio_stream::StreamExt;

/// Keeps some memory and uses some processor time.
const WORK: &str = "x=$(head -c 20000000 /dev/zero | tr '\\0' x); echo 1 > /file; \
    i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; while :; do sleep 0.2; done";

fn has_pressure() -> bool {
    let tree = [
        "/sys/fs/cgroup/cgroup.controllers",
        "/sys/fs/cgroup/unified",
    ];
    std::path::Path::new("/proc/pressure/cpu").exists()
        && tree.iter().any(|path| std::path::Path::new(path).exists())
}

fn number(value: Option<&UInt64Value>) -> u64 {
    value.unwrap().value
}

async fn container_stats(stand: &Stand, id: &str) -> ContainerStats {
    let request = ContainerStatsRequest {
        container_id: id.into(),
    };
    let reply = stand.client.runtime().container_stats(request).await;
    reply.unwrap().into_inner().stats.unwrap()
}

#[tokio::test]
async fn a_containers_numbers_are_plausible() {
    let stand = Stand::start().await;
    let config = stand.pod_config("web");
    let pod = stand.client.run_pod(&config).await;
    let mut main = container_spec("main", &stand.image, &["sh", "-c", WORK]);
    main.labels = HashMap::from([("app".to_owned(), "web".to_owned())]);
    let id = stand.client.run(&pod, &main, &config).await;
    tokio::time::sleep(Duration::from_secs(2)).await;

    let stats = container_stats(&stand, &id).await;
    let attributes = stats.attributes.unwrap();
    assert_eq!(attributes.id, id);
    assert_eq!(attributes.metadata.unwrap().name, "main");
    assert_eq!(attributes.labels["app"], "web");
    let cpu = stats.cpu.unwrap();
    let used = number(cpu.usage_core_nano_seconds.as_ref());
    assert!((50_000_000..60_000_000_000).contains(&used), "{used}");
    assert_eq!(cpu.psi.is_some(), has_pressure());
    let memory = stats.memory.unwrap();
    assert_eq!(memory.psi.is_some(), has_pressure());
    assert_eq!(stats.io.is_some(), has_pressure());
    let (usage, set) = (
        number(memory.usage_bytes.as_ref()),
        number(memory.working_set_bytes.as_ref()),
    );
    assert!((20_000_000..500_000_000).contains(&usage), "{usage}");
    assert!(set <= usage && set >= 20_000_000, "{set}");
    assert!(number(memory.rss_bytes.as_ref()) >= 20_000_000);
    assert!(number(memory.page_faults.as_ref()) > 1000);
    let layer = stats.writable_layer.unwrap();
    assert!(number(layer.inodes_used.as_ref()) >= 1);
    eventually("the layer is counted anew", || async {
        let now = container_stats(&stand, &id).await.writable_layer.unwrap();
        number(now.inodes_used.as_ref()) >= 2 && now.timestamp > layer.timestamp
    })
    .await;
    assert!(layer.fs_id.unwrap().mountpoint.starts_with('/'));
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    assert!(now - u128::try_from(cpu.timestamp).unwrap() < 10_000_000_000);

    let later = container_stats(&stand, &id).await.cpu.unwrap();
    assert!(later.timestamp > cpu.timestamp);
    assert!(number(later.usage_core_nano_seconds.as_ref()) >= used);

    stand.client.stop(&id, 0).await;
    let ended = container_stats(&stand, &id).await;
    assert_eq!(ended.attributes.unwrap().id, id);
    stand.client.remove_pod(&pod).await;
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_pods_numbers_are_those_of_all_its_containers() {
    let stand = Stand::start().await;
    let config = stand.pod_config("web");
    let pod = stand.client.run_pod(&config).await;
    let mut ids = Vec::new();
    for name in ["one", "two"] {
        let main = container_spec(name, &stand.image, &["sh", "-c", WORK]);
        ids.push(stand.client.run(&pod, &main, &config).await);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let request = PodSandboxStatsRequest {
        pod_sandbox_id: pod.clone(),
    };
    let reply = stand.client.runtime().pod_sandbox_stats(request).await;
    let stats = reply.unwrap().into_inner().stats.unwrap();
    assert_eq!(stats.attributes.unwrap().id, pod);
    let linux = stats.linux.unwrap();
    let names: BTreeSet<_> = linux
        .containers
        .iter()
        .map(|it| it.attributes.clone().unwrap().id)
        .collect();
    assert_eq!(names, ids.into_iter().collect());
    let cpu = linux.cpu.unwrap();
    let sum: u64 = linux
        .containers
        .iter()
        .map(|it| number(it.cpu.as_ref().unwrap().usage_core_nano_seconds.as_ref()))
        .sum();
    assert!(sum > 0);
    assert!(number(cpu.usage_core_nano_seconds.as_ref()) * 100 >= sum * 95);
    assert_eq!(cpu.psi.is_some(), has_pressure(), "of the pod as a whole");
    let memory = linux.memory.unwrap();
    assert!(number(memory.working_set_bytes.as_ref()) >= 40_000_000);
    assert_eq!(memory.psi.is_some(), has_pressure());
    assert_eq!(linux.io.is_some(), has_pressure());
    // A shell and mostly its sleep, each.
    assert!((2..=6).contains(&number(linux.process.unwrap().process_count.as_ref())));
    let network = linux.network.unwrap();
    assert_eq!(network.default_interface.unwrap().name, "eth0");
    stand.client.remove_pod(&pod).await;
    stand.assert_clean().await;
}

/// Pods of one container each.
async fn many(stand: &Stand, count: usize) -> Vec<(String, String)> {
    let mut made = Vec::new();
    for n in 0..count {
        let mut config = stand.pod_config(&format!("pod-{n}"));
        config.labels = HashMap::from([("number".to_owned(), n.to_string())]);
        let pod = stand.client.run_pod(&config).await;
        let mut main = container_spec("main", &stand.image, &["sleep", "1000"]);
        main.labels = config.labels.clone();
        let id = stand.client.run(&pod, &main, &config).await;
        made.push((pod, id));
    }
    made
}

async fn remove_all(stand: &Stand, made: &[(String, String)]) {
    for (pod, _) in made {
        stand.client.remove_pod(pod).await;
    }
}

/// Every item of a streaming list; panics on an empty chunk.
macro_rules! collect {
    ($stand:ident, $rpc:ident($request:ident), $field:ident) => {{
        let reply = $stand.client.runtime().$rpc($request::default()).await;
        let mut stream = reply.unwrap().into_inner();
        let mut items = Vec::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.unwrap().$field;
            assert!(!chunk.is_empty());
            items.extend(chunk);
        }
        items
    }};
}

fn once<'a>(ids: impl IntoIterator<Item = &'a String>) -> BTreeSet<&'a String> {
    let mut all = BTreeSet::new();
    for id in ids {
        assert!(all.insert(id), "{id} comes twice");
    }
    all
}

#[tokio::test]
async fn filters_and_streams_give_each_object_once() {
    let stand = Stand::start().await;
    let made = many(&stand, 6).await;
    let pods = once(made.iter().map(|(pod, _)| pod));
    let ids = once(made.iter().map(|(_, id)| id));
    let mut runtime = stand.client.runtime();

    for (filter, wanted) in [
        (ContainerStatsFilter::default(), 6),
        (
            ContainerStatsFilter {
                id: made[0].1.clone(),
                ..Default::default()
            },
            1,
        ),
        (
            ContainerStatsFilter {
                pod_sandbox_id: made[1].0.clone(),
                ..Default::default()
            },
            1,
        ),
        (
            ContainerStatsFilter {
                label_selector: HashMap::from([("number".to_owned(), "2".to_owned())]),
                ..Default::default()
            },
            1,
        ),
        (
            ContainerStatsFilter {
                id: made[0].1.clone(),
                pod_sandbox_id: made[1].0.clone(),
                ..Default::default()
            },
            0,
        ),
    ] {
        let request = ListContainerStatsRequest {
            filter: Some(filter.clone()),
        };
        let reply = runtime.list_container_stats(request).await.unwrap();
        assert_eq!(reply.into_inner().stats.len(), wanted, "{filter:?}");
    }
    let request = ListPodSandboxStatsRequest {
        filter: Some(PodSandboxStatsFilter {
            label_selector: HashMap::from([("number".to_owned(), "3".to_owned())]),
            ..Default::default()
        }),
    };
    let reply = runtime.list_pod_sandbox_stats(request).await.unwrap();
    let stats = reply.into_inner().stats;
    assert_eq!(stats.len(), 1);
    assert_eq!(stats[0].attributes.as_ref().unwrap().id, made[3].0);

    let listed = collect!(
        stand,
        stream_containers(StreamContainersRequest),
        containers
    );
    assert_eq!(once(listed.iter().map(|it| &it.id)), ids);
    let listed = collect!(
        stand,
        stream_pod_sandboxes(StreamPodSandboxesRequest),
        pod_sandboxes
    );
    assert_eq!(once(listed.iter().map(|it| &it.id)), pods);
    let listed = collect!(
        stand,
        stream_container_stats(StreamContainerStatsRequest),
        container_stats
    );
    let attributes: Vec<_> = listed.into_iter().filter_map(|it| it.attributes).collect();
    assert_eq!(once(attributes.iter().map(|it| &it.id)), ids);
    let listed = collect!(
        stand,
        stream_pod_sandbox_stats(StreamPodSandboxStatsRequest),
        pod_sandbox_stats
    );
    let attributes: Vec<_> = listed.into_iter().filter_map(|it| it.attributes).collect();
    assert_eq!(once(attributes.iter().map(|it| &it.id)), pods);
    let listed = collect!(
        stand,
        stream_pod_sandbox_metrics(StreamPodSandboxMetricsRequest),
        pod_sandbox_metrics
    );
    assert_eq!(once(listed.iter().map(|it| &it.pod_sandbox_id)), pods);

    remove_all(&stand, &made).await;
    let listed = collect!(
        stand,
        stream_containers(StreamContainersRequest),
        containers
    );
    assert!(listed.is_empty());
    stand.assert_clean().await;
}

#[tokio::test]
async fn every_metric_has_samples_with_all_labels() {
    let stand = Stand::start().await;
    let config = stand.pod_config("web");
    let pod = stand.client.run_pod(&config).await;
    let main = container_spec("main", &stand.image, &["sh", "-c", WORK]);
    let id = stand.client.run(&pod, &main, &config).await;
    let mut runtime = stand.client.runtime();
    let reply = runtime
        .list_metric_descriptors(ListMetricDescriptorsRequest::default())
        .await;
    let descriptors = reply.unwrap().into_inner().descriptors;
    let labels: BTreeMap<_, _> = descriptors
        .iter()
        .map(|it| (it.name.clone(), it.label_keys.len()))
        .collect();
    assert_eq!(labels.len(), 56, "each name once");
    assert!(descriptors.iter().all(|it| !it.help.is_empty()));

    let reply = runtime
        .list_pod_sandbox_metrics(ListPodSandboxMetricsRequest::default())
        .await;
    let pods = reply.unwrap().into_inner().pod_metrics;
    assert_eq!(pods.len(), 1);
    assert_eq!(pods[0].pod_sandbox_id, pod);
    assert_eq!(pods[0].container_metrics[0].container_id, id);
    let mut missing: BTreeSet<_> = labels.keys().collect();
    let containers = pods[0].container_metrics.iter().flat_map(|it| &it.metrics);
    for sample in pods[0].metrics.iter().chain(containers) {
        assert_eq!(
            sample.label_values.len(),
            labels[&sample.name],
            "{}",
            sample.name
        );
        assert!(sample.value.is_some(), "{}", sample.name);
        missing.remove(&sample.name);
    }
    missing.retain(|name| has_pressure() || !name.starts_with("container_pressure"));
    let huge = std::fs::read_dir("/sys/kernel/mm/hugepages").is_ok_and(|all| all.count() > 0)
        && (std::path::Path::new("/sys/fs/cgroup/hugetlb").exists()
            || std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists());
    missing.retain(|name| huge || !name.starts_with("container_hugetlb"));
    assert!(missing.is_empty(), "no sample of {missing:?}");
    stand.client.remove_pod(&pod).await;
    stand.assert_clean().await;
}

#[tokio::test]
async fn listing_many_is_quick() {
    let stand = Stand::start().await;
    let made = many(&stand, 50).await;
    let mut runtime = stand.client.runtime();
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let begun = Instant::now();
        let request = ListContainerStatsRequest::default();
        let reply = runtime.list_container_stats(request).await.unwrap();
        best = best.min(begun.elapsed());
        assert_eq!(reply.into_inner().stats.len(), 50);
    }
    eprintln!("ListContainerStats of 50: {best:?}");
    // For debug builds and loaded machines.
    assert!(best < Duration::from_millis(40), "{best:?}");
    remove_all(&stand, &made).await;
    stand.assert_clean().await;
}
