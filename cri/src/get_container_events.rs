//! GetContainerEvents.

use std::collections::HashMap;

use joey_proto::cri::{
    ContainerEventResponse, ContainerEventType, GetEventsRequest, PodSandboxMetadata,
    PodSandboxStatus,
};
use joey_runtime::model::Owner;
use joey_runtime::{Event, EventKind};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::chunks::Listing;
use crate::pod_sandbox_status::container_statuses;
use crate::reply;
use crate::service::Service;
use crate::status::Result;

/// Events that wait for one client. The runtime holds more; a client that is slower still loses
/// its stream, never an event in the midst of it, and the life cycle waits for nobody.
const WAITING: usize = 64;

#[allow(
    clippy::unused_async,
    reason = "every RPC is served by an async function"
)]
pub(crate) async fn stream(
    service: &Service,
    _request: GetEventsRequest,
) -> Result<Listing<ContainerEventResponse>> {
    let events = service.runtime.subscribe();
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(send(service.clone(), events, sender));
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

async fn send(
    service: Service,
    mut events: Receiver<Event>,
    client: mpsc::Sender<std::result::Result<ContainerEventResponse, Status>>,
) {
    let mut known = KnownPods::of(&service);
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = client.closed() => return,
        };
        let answer = match event {
            Ok(event) if event.owner != Owner::Cri => continue,
            Ok(event) => Ok(response(&service, &mut known, &event)),
            Err(RecvError::Closed) => return,
            Err(RecvError::Lagged(lost)) => Err(Status::data_loss(format!(
                "the client is too slow, {lost} events were lost: list anew and subscribe again"
            ))),
        };
        let last = answer.is_err();
        if client.send(answer).await.is_err() || last {
            return;
        }
    }
}

fn response(service: &Service, known: &mut KnownPods, event: &Event) -> ContainerEventResponse {
    let pod = service.runtime.pod(&event.pod_id).ok();
    let status = match &pod {
        Some(pod) => known.learn(reply::pod_status(&pod.record())),
        None => known.last(&event.pod_id),
    };
    let deleted = event.kind == EventKind::Deleted;
    if deleted && event.container_id == event.pod_id {
        known.forget(&event.pod_id);
    }
    ContainerEventResponse {
        container_id: event.container_id.clone(),
        container_event_type: kind(event.kind) as i32,
        created_at: event.at,
        pod_sandbox_status: Some(status),
        containers_statuses: pod
            .map(|pod| container_statuses(service, &pod))
            .unwrap_or_default(),
    }
}

fn kind(kind: EventKind) -> ContainerEventType {
    match kind {
        EventKind::Created => ContainerEventType::ContainerCreatedEvent,
        EventKind::Started => ContainerEventType::ContainerStartedEvent,
        EventKind::Stopped => ContainerEventType::ContainerStoppedEvent,
        EventKind::Deleted => ContainerEventType::ContainerDeletedEvent,
    }
}

/// The last status of each pod, for the event of its removal: the kubelet finds the pod by the UID
/// in it.
#[derive(Debug, Default)]
struct KnownPods(HashMap<String, PodSandboxStatus>);

impl KnownPods {
    fn of(service: &Service) -> Self {
        let pods = service.runtime.pods(Owner::Cri);
        let statuses = pods.iter().map(|pod| reply::pod_status(&pod.record()));
        Self(statuses.map(|status| (status.id.clone(), status)).collect())
    }

    fn learn(&mut self, status: PodSandboxStatus) -> PodSandboxStatus {
        self.0.insert(status.id.clone(), status.clone());
        status
    }

    /// Of a pod that is gone; one that was never seen still gets a status with its id.
    fn last(&self, id: &str) -> PodSandboxStatus {
        let mut status = self.0.get(id).cloned().unwrap_or_else(|| PodSandboxStatus {
            id: id.to_owned(),
            metadata: Some(PodSandboxMetadata::default()),
            ..PodSandboxStatus::default()
        });
        status.state = joey_proto::cri::PodSandboxState::SandboxNotready as i32;
        status
    }

    fn forget(&mut self, id: &str) {
        self.0.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_pod_keeps_its_uid_until_the_event_is_sent() {
        let mut known = KnownPods::default();
        let status = PodSandboxStatus {
            id: "p1".into(),
            metadata: Some(PodSandboxMetadata {
                uid: "u-1".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        known.learn(status);
        let last = known.last("p1");
        assert_eq!(last.metadata.unwrap().uid, "u-1");
        assert_eq!(
            last.state,
            joey_proto::cri::PodSandboxState::SandboxNotready as i32
        );
        known.forget("p1");
        assert_eq!(
            known.last("p1").metadata,
            Some(PodSandboxMetadata::default())
        );
    }

    #[test]
    fn every_kind_is_mapped() {
        for (given, wanted) in [
            (EventKind::Created, 0),
            (EventKind::Started, 1),
            (EventKind::Stopped, 2),
            (EventKind::Deleted, 3),
        ] {
            assert_eq!(kind(given) as i32, wanted);
        }
    }
}
