//! What fails leaves nothing, says what failed, and can be tried again.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use joey_proto::cri::*;
use joey_tests::{Stand, bind};
use tonic::Code;

#[tokio::test]
async fn a_failed_start_is_an_exit_with_its_cause_and_the_name_is_free_again() {
    let node = Stand::start().await;
    let config = node.pod_config("starts");
    let pod = node.client.run_pod(&config).await;
    let missing = node.container("main", &["/no/such/program"]);
    let id = node.client.create(&pod, &missing, &config).await.unwrap();
    let error = node.client.start(&id).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    assert!(error.message().contains("/no/such/program"), "{error}");
    let status = node.client.status(&id).await;
    assert_eq!(status.state(), ContainerState::ContainerExited);
    assert_eq!(status.reason, "StartError", "{status:?}");
    assert!(status.message.contains("/no/such/program"), "{status:?}");
    assert_ne!(status.exit_code, 0);
    assert!(status.finished_at > 0);
    node.client.remove(&id).await;

    let works = node.container("main", &["true"]);
    let id = node.client.run(&pod, &works, &config).await;
    let status = node.client.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"));
    assert_eq!(status.metadata.unwrap().name, "main");

    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn a_failed_create_leaves_nothing() {
    let node = Stand::start().await;
    let config = node.pod_config("creates");
    let pod = node.client.run_pod(&config).await;
    let mut container = node.sleeper("main");
    container
        .mounts
        .push(bind(std::path::Path::new("/no/such/volume"), "/v"));
    let error = match node.client.create(&pod, &container, &config).await {
        Ok(id) => panic!("{id} was created"),
        Err(error) => error,
    };
    assert!(error.message().contains("/no/such/volume"), "{error}");
    assert_ne!(error.code(), Code::NotFound, "the pod is there: {error}");
    let mut runtime = node.client.runtime();
    let listed = runtime.list_containers(ListContainersRequest::default());
    assert_eq!(listed.await.unwrap().into_inner().containers, []);
    container.mounts.clear();
    let id = node.client.run(&pod, &container, &config).await;
    node.client.stop(&id, 0).await;

    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn an_ended_or_running_container_is_not_started_again() {
    let node = Stand::start().await;
    let config = node.pod_config("twice");
    let pod = node.client.run_pod(&config).await;
    let id = node.client.run(&pod, &node.sleeper("main"), &config).await;
    let error = node.client.start(&id).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    assert!(error.message().contains(&id), "{error}");
    node.client.stop(&id, 0).await;
    let error = node.client.start(&id).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");

    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn what_is_unknown_is_not_found_but_stops_and_removals_succeed() {
    let node = Stand::start().await;
    let mut runtime = node.client.runtime();
    let nobody = "nobody".to_owned();
    let pod = runtime
        .pod_sandbox_status(PodSandboxStatusRequest {
            pod_sandbox_id: nobody.clone(),
            verbose: false,
        })
        .await
        .map(drop);
    let container = runtime
        .container_status(ContainerStatusRequest {
            container_id: nobody.clone(),
            verbose: false,
        })
        .await
        .map(drop);
    let stats = runtime
        .container_stats(ContainerStatsRequest {
            container_id: nobody.clone(),
        })
        .await
        .map(drop);
    let exec = runtime
        .exec_sync(ExecSyncRequest {
            container_id: nobody.clone(),
            cmd: vec!["true".into()],
            timeout: 0,
        })
        .await
        .map(drop);
    let start = node.client.start(&nobody).await;
    let update = runtime
        .update_container_resources(UpdateContainerResourcesRequest {
            container_id: nobody.clone(),
            linux: Some(LinuxContainerResources::default()),
            ..Default::default()
        })
        .await
        .map(drop);
    for reply in [pod, container, stats, exec, start, update] {
        let error = reply.unwrap_err();
        assert_eq!(error.code(), Code::NotFound, "{error}");
        assert!(error.message().contains("nobody"), "{error}");
    }
    node.client.stop(&nobody, 0).await;
    node.client.remove(&nobody).await;
    node.client.remove_pod(&nobody).await;
    let config = node.pod_config("x");
    let created = node
        .client
        .create(&nobody, &node.sleeper("x"), &config)
        .await;
    let error = created.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");
    node.assert_clean().await;
}

#[tokio::test]
async fn nothing_is_created_in_a_stopped_pod() {
    let node = Stand::start().await;
    let config = node.pod_config("stopped");
    let pod = node.client.run_pod(&config).await;
    let waiting = node.client.create(&pod, &node.sleeper("a"), &config).await;
    let waiting = waiting.unwrap();
    let stop = StopPodSandboxRequest {
        pod_sandbox_id: pod.clone(),
    };
    let mut runtime = node.client.runtime();
    runtime.stop_pod_sandbox(stop.clone()).await.unwrap();
    runtime.stop_pod_sandbox(stop).await.unwrap();
    let created = node.client.create(&pod, &node.sleeper("b"), &config).await;
    let error = created.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    assert!(error.message().contains(&pod), "{error}");
    let error = node.client.start(&waiting).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");

    node.client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn a_retry_after_a_cancelled_call_gets_the_same_object() {
    let node = Stand::start().await;
    let config = node.pod_config("joined");
    let client = node.client.clone();
    for wait in [0, 1, 5, 20] {
        let cancelled = client.run_pod(&config);
        drop(tokio::time::timeout(Duration::from_millis(wait), cancelled).await);
    }
    let pod = client.run_pod(&config).await;
    let mut runtime = client.runtime();
    let listed = runtime.list_pod_sandbox(ListPodSandboxRequest::default());
    let listed = listed.await.unwrap().into_inner().items;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(listed[0].id, pod);

    let container = node.sleeper("main");
    for wait in [0, 1, 5, 20] {
        let cancelled = client.create(&pod, &container, &config);
        drop(tokio::time::timeout(Duration::from_millis(wait), cancelled).await);
    }
    let id = client.create(&pod, &container, &config).await.unwrap();
    let listed = runtime.list_containers(ListContainersRequest::default());
    let listed = listed.await.unwrap().into_inner().containers;
    assert_eq!(listed.len(), 1, "{listed:?}");
    client.start(&id).await.unwrap();
    let stop = tokio::time::timeout(Duration::from_millis(20), client.stop(&id, 1));
    drop(stop.await);
    let ended = client.ended(&id).await;
    assert_eq!(ended.exit_code, 137, "the stop goes on without its caller");

    client.remove_pod(&pod).await;
    node.assert_clean().await;
}

#[tokio::test]
async fn concurrent_calls_of_one_name_make_one_object() {
    let node = Stand::start().await;
    let config = node.pod_config("once");
    let client = &node.client;
    let pods = futures::future::join_all((0..4).map(|_| client.run_pod(&config))).await;
    let pod = pods[0].clone();
    assert!(pods.iter().all(|id| *id == pod), "{pods:?}");
    let container = node.sleeper("main");
    let created = (0..4).map(|_| client.create(&pod, &container, &config));
    let created = futures::future::try_join_all(created).await.unwrap();
    assert!(created.iter().all(|id| *id == created[0]), "{created:?}");
    client.start(&created[0]).await.unwrap();
    futures::future::join_all((0..4).map(|_| client.remove_pod(&pod))).await;
    node.assert_clean().await;
}
