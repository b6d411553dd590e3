//! Containers in lists and statuses.

use joey_cgroup::Resources;
use joey_proto::cri;
use joey_runtime::model::{
    Cause, ContainerRecord, ContainerState, Exit, Mount, MountSource, Propagation,
};

use super::pod::id_mappings;
use super::{resources, unsorted};
use crate::request::signal_from_name;

/// The names a container's image has now; empty where the image is gone.
#[derive(Debug, Clone, Default)]
pub(crate) struct ImageNames {
    pub(crate) tags: Vec<String>,
    pub(crate) digests: Vec<String>,
}

pub(crate) fn container_state(state: ContainerState) -> cri::ContainerState {
    match state {
        ContainerState::Created => cri::ContainerState::ContainerCreated,
        ContainerState::Running => cri::ContainerState::ContainerRunning,
        ContainerState::Exited => cri::ContainerState::ContainerExited,
        ContainerState::Unknown => cri::ContainerState::ContainerUnknown,
    }
}

/// A container as lists show it.
pub(crate) fn container(
    record: &ContainerRecord,
    state: ContainerState,
    names: &ImageNames,
) -> cri::Container {
    cri::Container {
        id: record.id.clone(),
        pod_sandbox_id: record.pod_id.clone(),
        metadata: Some(metadata(record)),
        image: Some(cri::ImageSpec {
            image: record.config.image.reference.clone(),
            user_specified_image: record.config.image.user_specified.clone(),
            runtime_handler: record.config.image.runtime_handler.clone(),
            ..cri::ImageSpec::default()
        }),
        image_ref: image_ref(record, names),
        state: container_state(state) as i32,
        created_at: record.created_at,
        labels: unsorted(&record.config.labels),
        annotations: unsorted(&record.config.annotations),
        image_id: record.config.image.id.clone(),
    }
}

/// A container's status.
pub(crate) fn container_status(
    record: &ContainerRecord,
    state: ContainerState,
    names: &ImageNames,
) -> cri::ContainerStatus {
    let config = &record.config;
    let exit = record.exit.as_ref();
    let (reason, message) = exit.map(reason).unwrap_or_default();
    cri::ContainerStatus {
        id: record.id.clone(),
        metadata: Some(metadata(record)),
        state: container_state(state) as i32,
        created_at: record.created_at,
        started_at: record.started.as_ref().map_or(0, |started| started.at),
        finished_at: exit.map_or(0, |exit| exit.at),
        exit_code: exit.map_or(0, |exit| exit.code),
        image: Some(cri::ImageSpec {
            image: image_name(record, names),
            user_specified_image: config.image.user_specified.clone(),
            runtime_handler: config.image.runtime_handler.clone(),
            ..cri::ImageSpec::default()
        }),
        image_ref: image_ref(record, names),
        reason: reason.to_owned(),
        message,
        labels: unsorted(&config.labels),
        annotations: unsorted(&config.annotations),
        mounts: config.mounts.iter().map(mount).collect(),
        log_path: config
            .log_path
            .as_ref()
            .map(|path| path.to_string_lossy().into_owned())
            .unwrap_or_default(),
        resources: Some(cri::ContainerResources {
            linux: Some(resources(&in_force(record, state), config.oom_score_adj)),
            windows: None,
        }),
        image_id: config.image.id.clone(),
        user: record.started.as_ref().map(|started| cri::ContainerUser {
            linux: Some(cri::LinuxContainerUser {
                uid: started.user.uid,
                gid: started.user.gid,
                supplemental_groups: started.user.groups.clone(),
            }),
        }),
        stop_signal: stop_signal(record) as i32,
    }
}

/// What the kernel has of a running container's limits, else what it is to have.
pub(crate) fn in_force(record: &ContainerRecord, state: ContainerState) -> Resources {
    let recorded = record.resources();
    match state {
        ContainerState::Running => record.cgroup.in_force(&recorded),
        _ => recorded,
    }
}

fn metadata(record: &ContainerRecord) -> cri::ContainerMetadata {
    cri::ContainerMetadata {
        name: record.config.name.clone(),
        attempt: record.config.attempt,
    }
}

/// The tag that the user meant where it is one of the image's, else any tag, else what was asked
/// for.
fn image_name(record: &ContainerRecord, names: &ImageNames) -> String {
    let image = &record.config.image;
    let meant = names.tags.iter().find(|tag| {
        let wanted = image.user_specified.as_str();
        !wanted.is_empty() && (*tag == wanted || tag.ends_with(&format!("/{wanted}")))
    });
    meant
        .or_else(|| names.tags.first())
        .unwrap_or(&image.reference)
        .clone()
}

/// A name that always leads to the same image.
fn image_ref(record: &ContainerRecord, names: &ImageNames) -> String {
    names
        .digests
        .first()
        .unwrap_or(&record.config.image.id)
        .clone()
}

/// The reason and the message of an end. The message is empty when the application ended by
/// itself: Kubernetes puts it before the application's own termination message.
fn reason(exit: &Exit) -> (&'static str, String) {
    match &exit.cause {
        Cause::Exit if exit.code == 0 => ("Completed", String::new()),
        Cause::Exit | Cause::Signal(_) => ("Error", String::new()),
        Cause::OutOfMemory => ("OOMKilled", exit.reason()),
        // As containerd has it.
        Cause::StartFailed(_) => ("StartError", exit.reason()),
        Cause::ShimLost | Cause::NodeRebooted => ("Error", exit.reason()),
    }
}

/// The signal asked for, else the image's, else SIGTERM.
fn stop_signal(record: &ContainerRecord) -> cri::Signal {
    let signal = match &record.config.stop_signal {
        Some(name) => signal_from_name(name),
        None => signal_from_name(&record.launch.stop_signal.to_string()),
    };
    match signal {
        cri::Signal::RuntimeDefault => cri::Signal::Sigterm,
        signal => signal,
    }
}

/// A mount as it was asked for; an image's with the id it had.
pub(crate) fn mount(mount: &Mount) -> cri::Mount {
    let (host_path, image, image_sub_path) = match &mount.source {
        MountSource::Host(path) => (path.to_string_lossy().into_owned(), None, String::new()),
        MountSource::Image {
            id,
            reference,
            user_specified,
            sub_path,
        } => (
            String::new(),
            Some(cri::ImageSpec {
                image: reference.clone(),
                image_ref: id.clone(),
                user_specified_image: user_specified.clone(),
                ..cri::ImageSpec::default()
            }),
            sub_path.clone(),
        ),
    };
    let propagation = match mount.propagation {
        Propagation::Private => cri::MountPropagation::PropagationPrivate,
        Propagation::HostToContainer => cri::MountPropagation::PropagationHostToContainer,
        Propagation::Bidirectional => cri::MountPropagation::PropagationBidirectional,
    };
    cri::Mount {
        container_path: mount.destination.to_string_lossy().into_owned(),
        host_path,
        readonly: mount.readonly,
        selinux_relabel: mount.selinux_relabel,
        propagation: propagation as i32,
        uid_mappings: id_mappings(&mount.uids),
        gid_mappings: id_mappings(&mount.gids),
        recursive_read_only: mount.recursive_readonly,
        image,
        image_sub_path,
    }
}

#[cfg(test)]
#[path = "container_tests.rs"]
mod tests;
