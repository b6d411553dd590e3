//! GetContainerEvents.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use joey_proto::cri::*;
use joey_tests::{Stand, container_spec};
use tokio_stream::StreamExt;
use tonic::Streaming;

async fn subscribe(stand: &Stand) -> Streaming<ContainerEventResponse> {
    let request = GetEventsRequest::default();
    let reply = stand.client.runtime().get_container_events(request).await;
    reply.unwrap().into_inner()
}

async fn next(events: &mut Streaming<ContainerEventResponse>) -> ContainerEventResponse {
    tokio::time::timeout(Duration::from_secs(10), events.next())
        .await
        .expect("an event within 10 s")
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn a_life_is_told_in_order_and_with_its_pod() {
    let stand = Stand::start().await;
    let mut events = subscribe(&stand).await;
    let config = stand.pod_config("web");
    let pod = stand.client.run_pod(&config).await;
    let main = container_spec("main", &stand.image, &["sleep", "1000"]);
    let id = stand.client.run(&pod, &main, &config).await;
    stand.client.stop(&id, 0).await;
    stand.client.remove(&id).await;
    stand.client.remove_pod(&pod).await;

    use ContainerEventType as T;
    for (object, kind) in [
        (&pod, T::ContainerCreatedEvent),
        (&pod, T::ContainerStartedEvent),
        (&id, T::ContainerCreatedEvent),
        (&id, T::ContainerStartedEvent),
        (&id, T::ContainerStoppedEvent),
        (&id, T::ContainerDeletedEvent),
        (&pod, T::ContainerStoppedEvent),
        (&pod, T::ContainerDeletedEvent),
    ] {
        let event = next(&mut events).await;
        assert_eq!(&event.container_id, object, "{event:?}");
        assert_eq!(event.container_event_type(), kind, "{event:?}");
        assert!(event.created_at > 0);
        let status = event.pod_sandbox_status.expect("a status in every event");
        assert_eq!(status.id, pod);
        assert_eq!(status.metadata.unwrap().uid, "uid-web");
        if object == &id && kind == T::ContainerStoppedEvent {
            let container = &event.containers_statuses[0];
            assert_eq!(container.state(), ContainerState::ContainerExited);
            assert_eq!(container.exit_code, 137);
        }
    }
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_container_that_ends_by_itself_is_told() {
    let stand = Stand::start().await;
    let config = stand.pod_config("web");
    let pod = stand.client.run_pod(&config).await;
    let mut events = subscribe(&stand).await;
    let main = container_spec("main", &stand.image, &["sh", "-c", "exit 9"]);
    let id = stand.client.run(&pod, &main, &config).await;
    loop {
        let event = next(&mut events).await;
        assert_eq!(event.container_id, id);
        if event.container_event_type() == ContainerEventType::ContainerStoppedEvent {
            assert_eq!(event.containers_statuses[0].exit_code, 9);
            break;
        }
    }
    stand.client.remove_pod(&pod).await;
    stand.assert_clean().await;
}

#[tokio::test]
async fn a_slow_reader_holds_up_nobody() {
    let stand = Stand::start().await;
    let slow = subscribe(&stand).await;
    let mut quick = subscribe(&stand).await;
    let config = stand.pod_config("web");
    let pod = stand.client.run_pod(&config).await;
    let count = 60;
    let lives = async {
        for n in 0..count {
            let main = container_spec(&format!("c{n}"), &stand.image, &["true"]);
            let id = stand.client.run(&pod, &main, &config).await;
            stand.client.ended(&id).await;
            stand.client.remove(&id).await;
        }
    };
    let told = async {
        let mut deleted = 0;
        while deleted < count {
            let event = next(&mut quick).await;
            if event.container_event_type() == ContainerEventType::ContainerDeletedEvent {
                deleted += 1;
            }
        }
    };
    let both = async { tokio::join!(lives, told) };
    tokio::time::timeout(Duration::from_secs(60), both)
        .await
        .expect("nobody waits for the slow reader");
    drop(slow);
    stand.client.remove_pod(&pod).await;
    stand.assert_clean().await;
}
