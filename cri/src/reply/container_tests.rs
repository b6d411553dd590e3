use super::*;
use crate::fixtures::container_record as record;

fn names() -> ImageNames {
    ImageNames {
        tags: vec![
            "docker.io/other/app:1".into(),
            "docker.io/shop/app:1".into(),
        ],
        digests: vec!["docker.io/shop/app@sha256:2".into()],
    }
}

fn ended(code: i32, cause: Cause, oom_kills: u64) -> Exit {
    Exit {
        code,
        at: 30,
        cause,
        oom_kills,
        ..Exit::default()
    }
}

#[test]
fn every_field_of_the_status_is_filled() {
    let status = container_status(&record(), ContainerState::Running, &names());
    assert_eq!(status.id, "c1");
    let metadata = status.metadata.unwrap();
    assert_eq!((metadata.name.as_str(), metadata.attempt), ("app", 2));
    assert_eq!(status.state, cri::ContainerState::ContainerRunning as i32);
    assert_eq!(
        (status.created_at, status.started_at, status.finished_at),
        (10, 20, 0)
    );
    let image = status.image.unwrap();
    assert_eq!(image.image, "docker.io/shop/app:1");
    assert_eq!(image.user_specified_image, "shop/app:1");
    assert_eq!(status.image_ref, "docker.io/shop/app@sha256:2");
    assert_eq!(status.image_id, "sha256:1");
    assert_eq!((status.reason.as_str(), status.message.as_str()), ("", ""));
    assert_eq!(status.labels["app"], "web");
    assert_eq!(status.annotations["note"], " as given\n");
    assert_eq!(status.mounts[0].container_path, "/data");
    assert_eq!(status.log_path, "/var/log/pods/web/app/0.log");
    let linux = status.resources.unwrap().linux.unwrap();
    assert_eq!((linux.cpu_shares, linux.oom_score_adj), (10, 7));
    let user = status.user.unwrap().linux.unwrap();
    assert_eq!(
        (user.uid, user.gid, user.supplemental_groups),
        (5, 6, vec![6, 7])
    );
    assert_eq!(status.stop_signal, cri::Signal::Sigquit as i32);
}

#[test]
fn the_list_shows_the_same() {
    let item = container(&record(), ContainerState::Running, &names());
    let status = container_status(&record(), ContainerState::Running, &names());
    assert_eq!(item.id, status.id);
    assert_eq!(item.pod_sandbox_id, "p1");
    assert_eq!(item.metadata, status.metadata);
    assert_eq!(item.image.unwrap().image, "sha256:1");
    assert_eq!(item.image_ref, status.image_ref);
    assert_eq!(item.image_id, status.image_id);
    assert_eq!(item.state, status.state);
    assert_eq!(item.created_at, status.created_at);
    assert_eq!(item.labels, status.labels);
    assert_eq!(item.annotations, status.annotations);
}

#[test]
fn an_image_that_is_gone_still_has_its_id() {
    let status = container_status(&record(), ContainerState::Running, &ImageNames::default());
    assert_eq!(status.image.unwrap().image, "sha256:1");
    assert_eq!(status.image_ref, "sha256:1");
}

#[test]
fn the_asked_for_stop_signal_beats_the_images() {
    let mut record = record();
    record.config.stop_signal = Some("SIGRTMIN+3".into());
    assert_eq!(stop_signal(&record), cri::Signal::Sigrtminplus3);
    record.config.stop_signal = None;
    record.launch.stop_signal = 0;
    assert_eq!(stop_signal(&record), cri::Signal::Sigterm);
}

#[test]
fn reasons_are_those_kubernetes_knows() {
    let cases = [
        (ended(0, Cause::Exit, 0), "Completed"),
        (ended(1, Cause::Exit, 0), "Error"),
        (ended(1, Cause::Exit, 1), "Error"),
        (ended(137, Cause::Exit, 0), "Error"),
        (ended(143, Cause::Signal(15), 0), "Error"),
        (ended(137, Cause::Signal(9), 0), "Error"),
        (ended(137, Cause::OutOfMemory, 1), "OOMKilled"),
        (
            ended(128, Cause::StartFailed("no /bin/app".into()), 0),
            "StartError",
        ),
        (ended(255, Cause::ShimLost, 0), "Error"),
        (ended(255, Cause::NodeRebooted, 0), "Error"),
    ];
    for (exit, wanted) in cases {
        let status = container_status(
            &ContainerRecord {
                exit: Some(exit.clone()),
                ..record()
            },
            ContainerState::Exited,
            &names(),
        );
        assert_eq!(status.reason, wanted, "{exit:?}");
        assert_eq!((status.finished_at, status.exit_code), (30, exit.code));
        let plain = matches!(exit.cause, Cause::Exit | Cause::Signal(_));
        assert_eq!(
            status.message.is_empty(),
            plain,
            "{exit:?}: {}",
            status.message
        );
    }
}

#[test]
fn every_state_is_mapped() {
    for (state, wanted) in [
        (ContainerState::Created, 0),
        (ContainerState::Running, 1),
        (ContainerState::Exited, 2),
        (ContainerState::Unknown, 3),
    ] {
        assert_eq!(container_state(state) as i32, wanted);
    }
}
