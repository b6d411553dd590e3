//! Makes a container: its record, layers and folders. No process starts.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use joey_image::Image;

use crate::cdi;
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::ids;
use crate::model::{
    ContainerConfig, ContainerRecord, ContainerState, Launch, MountSource, PidMode, PodState,
    RECORD_VERSION,
};
use crate::objects::{Container, Pod};
use crate::oci;
use crate::runtime::Runtime;
use crate::selinux;

/// The kubelet tells an image volume's failure by this in front of the message.
pub(crate) const IMAGE_VOLUME_ERROR: &str = "ImageVolumeMountFailed";

impl Runtime {
    /// Makes a container in a pod and returns its id. One that is made already under the same name
    /// and was asked for in the same words is returned.
    ///
    /// # Errors
    /// Nothing is left of the container after one.
    pub async fn create_container(
        self: &Arc<Self>,
        pod_id: &str,
        config: ContainerConfig,
    ) -> Result<String> {
        if config.name.is_empty() {
            return Err(Error::invalid("container metadata.name is empty"));
        }
        let pod = self.pod(pod_id)?;
        let key = format!("create/{}/{}/{}", pod.id(), config.name, config.attempt);
        let runtime = Arc::clone(self);
        self.pod_operations
            .run(key, move || async move {
                runtime.create_new_container(&pod, config).await
            })
            .await
    }

    async fn create_new_container(
        self: Arc<Self>,
        pod: &Arc<Pod>,
        mut config: ContainerConfig,
    ) -> Result<String> {
        let handler = &pod.record().config.runtime_handler;
        config.security.privileged_without_host_devices = self
            .config
            .handlers
            .get(handler)
            .is_some_and(|handler| handler.privileged_without_host_devices);
        let _changing = pod.changing.read().await;
        if pod.record().state != PodState::Ready {
            return Err(Error::WrongState {
                kind: "pod sandbox",
                id: pod.id().to_owned(),
                state: "not ready",
                operation: "creating a container",
                needs: "ready",
            });
        }
        if let Some(container) = find(pod, &config) {
            if container.state() == ContainerState::Created && container.record().config == config {
                return Ok(container.id().to_owned());
            }
            return Err(Error::NameTaken {
                kind: "container",
                name: format!("{}_{}", config.name, config.attempt),
                id: container.id().to_owned(),
            });
        }
        self.validate(pod, &config).await?;
        let image = self.find_image(&config.image.id)?;
        let profile = oci::local_profile(&self.seccomp, &config.security)?;
        let edits = cdi::edits(&config)?;
        let launch = launch(&config, &image, edits.env())?;
        let id = ids::new_id()?;
        let parent = self.cgroup_parent(&pod.record().config.cgroup_parent, pod.id());
        let cgroup = self.cgroups.open(&parent, &id);
        let checked = cgroup.check(&config.resources);
        checked.map_err(|e| Error::limits("limit the container", e))?;
        let mut undo = Undo {
            runtime: &self,
            id: &id,
            holds: Vec::new(),
            armed: true,
        };
        let lowers = undo.hold(id.clone(), &image)?;
        let mut mounted_images = BTreeMap::new();
        for mount in &config.mounts {
            if let MountSource::Image {
                id: image_id,
                reference,
                ..
            } = &mount.source
            {
                let failed = |why| {
                    Error::step(
                        format!("{IMAGE_VOLUME_ERROR}: mount image {reference}"),
                        why,
                    )
                };
                let image = self.find_image(image_id).map_err(failed)?;
                let owner = mount_owner(&id, image_id);
                mounted_images.insert(image_id.clone(), undo.hold(owner, &image).map_err(failed)?);
            }
        }
        let record = ContainerRecord {
            version: RECORD_VERSION,
            cgroup,
            pod_id: pod.id().to_owned(),
            created_at: ids::now(),
            started: None,
            asked: None,
            exit: None,
            overlays: Vec::new(),
            poststop_done: false,
            unsynced: false,
            launch,
            lowers,
            mounted_images,
            edits,
            id: id.clone(),
            config,
        };
        let container = Arc::new(Container::new(record));
        self.make_folders(pod, &container)?;
        if let Some(profile) = profile {
            let path = self.config.seccomp_profile(container.id());
            joey_failpoint::hit("container.file.write")
                .and_then(|()| std::fs::write(&path, profile))
                .map_err(|e| Error::file("write", path, e))?;
        }
        container.save(&self.container_records)?;
        undo.armed = false;
        let upper = self.config.writable(container.id()).join("upper");
        self.stats.layers.begin(container.id(), &upper);
        self.add_container(pod, &container);
        self.announce(pod, container.id(), EventKind::Created);
        Ok(container.id().to_owned())
    }

    fn find_image(&self, id: &str) -> Result<Arc<Image>> {
        self.images.get(id).ok_or_else(|| Error::NotFound {
            kind: "image",
            id: id.to_owned(),
        })
    }

    async fn validate(&self, pod: &Pod, config: &ContainerConfig) -> Result<()> {
        if config.security.privileged && !pod.record().config.security.privileged {
            return Err(Error::invalid(
                "a privileged container needs a privileged pod sandbox",
            ));
        }
        for mount in &config.mounts {
            if !mount.destination.is_absolute() {
                let path = mount.destination.display();
                return Err(Error::invalid(format!("mount path {path} is not absolute")));
            }
        }
        let sources = config
            .mounts
            .iter()
            .filter_map(|mount| match &mount.source {
                MountSource::Host(path) => Some(self.host_paths.resolve(path)),
                MountSource::Image { .. } => None,
            });
        futures::future::try_join_all(sources).await?;
        if let PidMode::Target(target) = &config.pid {
            let target = self.container(target)?;
            if target.record().pod_id != pod.id() {
                return Err(Error::invalid("the target container is in another pod"));
            }
            if target.state() != ContainerState::Running {
                return Err(Error::invalid("the target container is not running"));
            }
        }
        oci::check_devices(config)?;
        oci::capabilities(&config.security)?;
        oci::check_apparmor(&self.features, &config.security.apparmor)?;
        selinux::check(&self.features, config.security.selinux.as_ref())
    }

    fn make_folders(&self, pod: &Pod, container: &Container) -> Result<()> {
        let writable = self.config.writable(container.id());
        let (upper, work) = (writable.join("upper"), writable.join("work"));
        for folder in [&upper, &work] {
            joey_failpoint::hit("container.folder.create")
                .and_then(|()| std::fs::create_dir_all(folder))
                .map_err(|e| Error::file("create", folder, e))?;
        }
        // A container's root is readable by every user in it.
        std::fs::set_permissions(&upper, std::fs::Permissions::from_mode(0o755))
            .map_err(|e| Error::file("set the mode of", &upper, e))?;
        if let Some(namespace) = &pod.record().config.user_namespace {
            let (uid, gid) = namespace
                .root()
                .ok_or_else(|| Error::invalid("the pod's user namespace does not map id 0"))?;
            for folder in [&upper, &work] {
                std::os::unix::fs::chown(folder, Some(uid), Some(gid))
                    .map_err(|e| Error::file("give to the pod's root", folder, e))?;
            }
        }
        if let Some(folder) = container
            .record()
            .config
            .log_path
            .as_deref()
            .and_then(Path::parent)
        {
            joey_failpoint::hit("log.folder.create")
                .and_then(|()| std::fs::create_dir_all(folder))
                .map_err(|e| Error::file("create", folder, e))?;
        }
        Ok(())
    }
}

/// Who holds an image that a container mounts.
fn mount_owner(container_id: &str, image_id: &str) -> String {
    format!("{container_id}-{}", image_id.trim_start_matches("sha256:"))
}

/// An image that is held for a container.
pub(crate) struct HeldImage<'a> {
    pub owner: String,
    pub image_id: &'a str,
    pub lowers: &'a [PathBuf],
}

/// All images that are held for a container.
pub(crate) fn held_images(record: &ContainerRecord) -> impl Iterator<Item = HeldImage<'_>> {
    let own = HeldImage {
        owner: record.id.clone(),
        image_id: &record.config.image.id,
        lowers: &record.lowers,
    };
    let mounted = record
        .mounted_images
        .iter()
        .map(|(image_id, lowers)| HeldImage {
            owner: mount_owner(&record.id, image_id),
            image_id,
            lowers,
        });
    std::iter::once(own).chain(mounted)
}

/// Takes back what a failed creation has made.
struct Undo<'a> {
    runtime: &'a Runtime,
    id: &'a str,
    holds: Vec<String>,
    armed: bool,
}

impl Undo<'_> {
    /// Holds an image for `owner` and returns its layers' folders.
    fn hold(&mut self, owner: String, image: &Image) -> Result<Vec<PathBuf>> {
        let images = &self.runtime.images;
        let failed = |e| Error::step(format!("hold the layers of image {}", image.id), e);
        images.hold(&owner, &image.id).map_err(failed)?;
        self.holds.push(owner);
        let owner = self.holds.last().map_or("", String::as_str);
        Ok(images.lease_held(owner).map_err(failed)?.lowers().to_vec())
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if self.armed {
            for owner in &self.holds {
                self.runtime.images.release(owner);
            }
            self.runtime
                .discard(&self.runtime.config.writable(self.id), self.id);
        }
    }
}

fn find(pod: &Pod, config: &ContainerConfig) -> Option<Arc<Container>> {
    pod.containers().into_iter().find(|container| {
        let other = &container.record().config;
        other.name == config.name && other.attempt == config.attempt
    })
}

/// What runs: the request's command and arguments over the image's.
fn launch(config: &ContainerConfig, image: &Image, edits: &[String]) -> Result<Launch> {
    let defaults = &image.config;
    let mut args = config.command.clone();
    if args.is_empty() {
        args.extend(defaults.entrypoint.iter().cloned());
        if config.args.is_empty() {
            args.extend(defaults.cmd.iter().cloned());
        }
    }
    args.extend(config.args.iter().cloned());
    if args.is_empty() {
        return Err(Error::invalid(format!(
            "no command is given and image {} has none",
            config.image.reference
        )));
    }
    let cwd = [&config.working_dir, &defaults.working_dir]
        .into_iter()
        .find(|folder| !folder.is_empty())
        .map_or("/", String::as_str);
    let signal = config
        .stop_signal
        .as_deref()
        .unwrap_or(&defaults.stop_signal);
    Ok(Launch {
        args,
        env: oci::environment(&[&defaults.env[..], edits].concat(), config),
        cwd: cwd.to_owned(),
        image_user: defaults.user.clone(),
        stop_signal: oci::signal_number(signal)?,
    })
}
