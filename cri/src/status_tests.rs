use joey_image::{PullErrorKind, RemoveError};
use joey_runtime::Error as Runtime;

use super::*;

fn not_found() -> Runtime {
    Runtime::NotFound {
        kind: "container",
        id: "c1".into(),
    }
}

fn disk_full() -> std::io::Error {
    std::io::ErrorKind::StorageFull.into()
}

#[test]
fn every_runtime_error_has_its_code() {
    let timed_out = || Runtime::TimedOut {
        command: "sleep 9".into(),
        seconds: 1,
    };
    let cases = [
        (not_found(), Code::NotFound),
        (Runtime::invalid("no"), Code::InvalidArgument),
        (
            Runtime::WrongState {
                kind: "container",
                id: "c1".into(),
                state: "exited",
                operation: "a start",
                needs: "created",
            },
            Code::FailedPrecondition,
        ),
        (
            Runtime::NameTaken {
                kind: "container",
                name: "a".into(),
                id: "c1".into(),
            },
            Code::AlreadyExists,
        ),
        (
            Runtime::Unsupported {
                what: "AppArmor".into(),
                why: "off".into(),
            },
            Code::FailedPrecondition,
        ),
        (timed_out(), Code::DeadlineExceeded),
        (
            Runtime::Exhausted {
                what: "addresses".into(),
            },
            Code::ResourceExhausted,
        ),
        (Runtime::step("do it", "because"), Code::Internal),
        (Runtime::step("do it", timed_out()), Code::DeadlineExceeded),
        (
            Runtime::step("do it", Runtime::step("write it", disk_full())),
            Code::ResourceExhausted,
        ),
        (
            Runtime::file("write", "/a", disk_full()),
            Code::ResourceExhausted,
        ),
        (
            Runtime::file("read", "/a", std::io::ErrorKind::NotFound.into()),
            Code::Internal,
        ),
        (
            Runtime::Joined(std::sync::Arc::new(timed_out())),
            Code::DeadlineExceeded,
        ),
        (Runtime::Aborted, Code::Internal),
    ];
    for (error, wanted) in cases {
        let text = error.to_string();
        assert_eq!(Failure::from(error).code(), wanted, "{text}");
    }
}

#[test]
fn not_found_inside_a_step_is_not_said_of_the_object() {
    let stop = Failure::from(Runtime::step("stop the pod", not_found()));
    assert_eq!(stop.code(), Code::FailedPrecondition);
}

#[test]
fn the_message_is_the_whole_chain_and_names_the_operation() {
    let failure = Failure::from(Runtime::step(
        "start it",
        Runtime::step("mount /a", "no device"),
    ));
    let status = failure.to_status("0123");
    assert_eq!(
        status.message(),
        "start it: mount /a: no device (operation 0123)"
    );
}

#[test]
fn a_failed_image_volume_is_told_at_the_start() {
    let inner = Runtime::invalid("ImageVolumeMountFailed: no folder \"v1\" in the image");
    let failure = Failure::from(Runtime::step("create container c1", inner));
    assert!(
        failure.message().starts_with("ImageVolumeMountFailed: "),
        "{}",
        failure.message()
    );
}

#[test]
fn every_pull_error_has_its_code() {
    for (kind, wanted) in [
        (PullErrorKind::InvalidRequest, Code::InvalidArgument),
        (PullErrorKind::NotFound, Code::NotFound),
        (PullErrorKind::Denied, Code::PermissionDenied),
        (PullErrorKind::RateLimited, Code::ResourceExhausted),
        (PullErrorKind::NoSpace, Code::ResourceExhausted),
        (PullErrorKind::UnusableImage, Code::FailedPrecondition),
        (PullErrorKind::Unavailable, Code::Unknown),
        (PullErrorKind::Other, Code::Unknown),
    ] {
        assert_eq!(pull_code(kind), wanted, "{kind:?}");
    }
}

#[test]
fn a_registry_that_is_down_is_told_at_the_start() {
    let error = joey_image::RegistryError::Unavailable {
        operation: "resolve a".into(),
        failures: joey_image::Failures::default(),
    };
    let status = Failure::from(joey_image::PullError::from(error)).to_status("0123");
    assert_eq!(status.code(), Code::Unknown);
    assert!(
        status.message().starts_with("RegistryUnavailable"),
        "{}",
        status.message()
    );
}

#[test]
fn the_rest_has_codes_too() {
    let cases = [
        (invalid("no"), Code::InvalidArgument),
        (
            Failure::NotFound {
                kind: "image",
                id: "a".into(),
            },
            Code::NotFound,
        ),
        (
            Failure::NoImageForMount {
                image: "a".into(),
                path: "/m".into(),
            },
            Code::NotFound,
        ),
        (Failure::Unimplemented("not yet"), Code::Unimplemented),
        (Failure::Aborted, Code::Internal),
        (
            joey_streaming::UrlError::NoStream.into(),
            Code::InvalidArgument,
        ),
        (
            joey_streaming::UrlError::TooManyPending { limit: 1 }.into(),
            Code::ResourceExhausted,
        ),
        (RemoveError::Aborted.into(), Code::Internal),
    ];
    for (failure, wanted) in cases {
        assert_eq!(failure.code(), wanted, "{failure}");
    }
}
