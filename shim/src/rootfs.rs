//! The container's root file system and its volumes, as detached mounts.
//!
//! Everything here is opened and copied in the host's mount namespace (the copies stay in the
//! peer groups of their sources), is never attached there, and so never has to be unmounted.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use joey_proto::shim::{Bind, Propagation, Rootfs};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, unmount,
};

use crate::error::{Failure, Result, Step};
use crate::inside::open_within;
use crate::namespaces::{Pod, make_user};
use crate::selinux;
use crate::sys::{self, MountChange};
use crate::template::{self, attach, clone_tree};

/// A volume, ready to be attached in the container.
#[derive(Debug)]
pub struct Volume {
    /// The detached mount.
    pub tree: OwnedFd,
    /// Its place in the container.
    pub destination: String,
    /// What a failure is called in front.
    pub error_prefix: String,
    /// Whether the mount point is a folder.
    pub directory: bool,
}

/// An overlay, or the one layer, as a detached mount.
pub fn mount_rootfs(rootfs: &Rootfs, pod: &Pod) -> Result<OwnedFd> {
    let lowers = layers(
        &rootfs.lowers,
        rootfs.idmap_lowers.then_some(pod.user.as_ref()).flatten(),
    )?;
    let upper = (!rootfs.upper.is_empty()).then_some(rootfs);
    joey_failpoint::hit("rootfs.prepare").step("mount the root file system")?;
    if rootfs.volatile {
        // Left by an earlier mount of this upper, whose data then may be incomplete after a crash
        // of the host; the daemon, which asked for this, never keeps such a layer over one.
        drop(std::fs::remove_dir_all(format!(
            "{}/work/incompat",
            rootfs.work
        )));
    }
    overlay(&lowers, upper).step("mount the root file system")
}

/// The layers' folders: paths, or idmapped copies of their mounts.
fn layers(paths: &[String], user: Option<&OwnedFd>) -> Result<Vec<Layer>> {
    paths
        .iter()
        .map(|path| {
            let Some(user) = user else {
                return Ok(Layer::Path(path.clone()));
            };
            let tree =
                clone_tree(CWD, path, false).step_with(|| format!("open the layer {path}"))?;
            let change = MountChange {
                userns: Some(user.as_fd()),
                ..MountChange::default()
            };
            sys::mount_setattr(tree.as_fd(), &change)
                .step_with(|| format!("map the ids of the layer {path}"))?;
            Ok(Layer::Tree(tree))
        })
        .collect()
}

#[derive(Debug)]
enum Layer {
    Path(String),
    Tree(OwnedFd),
}

fn overlay(lowers: &[Layer], upper: Option<&Rootfs>) -> Result<OwnedFd> {
    if let ([only], None) = (lowers, upper) {
        // The kernel refuses an overlay of one layer.
        return match only {
            Layer::Path(path) => clone_tree(CWD, path, false),
            Layer::Tree(tree) => clone_tree(tree.as_fd(), "", false),
        };
    }
    joey_failpoint::hit("mount.overlay")?;
    if !appends_layers() {
        return overlay_by_path(lowers, upper);
    }
    match overlay_by_context(lowers, upper) {
        // Before 6.13 a layer is no detached mount, nor given by an O_PATH descriptor.
        Err(failure) if matches!(failure.errno, libc::EINVAL | libc::EOPNOTSUPP | libc::EBADF) => {
            overlay_by_path(lowers, upper)
        }
        other => other,
    }
}

/// `lowerdir+` came with 6.7. Trying it on an older kernel would leave a line in its log each time.
fn appends_layers() -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 7)
}

fn overlay_by_context(lowers: &[Layer], upper: Option<&Rootfs>) -> Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).step("open an overlay")?;
    let context = context.as_fd();
    fsconfig_set_string(context, "source", "overlay")?;
    for lower in lowers {
        match lower {
            Layer::Path(path) => fsconfig_set_string(context, "lowerdir+", path.as_str())
                .step_with(|| format!("add the layer {path}"))?,
            Layer::Tree(tree) => rustix::mount::fsconfig_set_fd(context, "lowerdir+", tree.as_fd())
                .step("add a layer with mapped ids")?,
        }
    }
    if let Some(Rootfs {
        upper,
        work,
        volatile,
        selinux_label,
        ..
    }) = upper
    {
        if !selinux_label.is_empty() {
            fsconfig_set_string(context, "context", selinux_label.as_str())
                .step_with(|| format!("apply the SELinux label {selinux_label}"))?;
        }
        fsconfig_set_string(context, "upperdir", upper.as_str())
            .step_with(|| format!("set upperdir {upper}"))?;
        fsconfig_set_string(context, "workdir", work.as_str())
            .step_with(|| format!("set workdir {work}"))?;
        if *volatile {
            fsconfig_set_flag(context, "volatile")?;
        }
    }
    fsconfig_create(context).step("make the overlay")?;
    fsmount(
        context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
    .step("mount the overlay")
}

/// For kernels before 6.13, in a throw-away copy of the host's mount namespace: the layers are
/// named through /proc/self/fd, which keeps the options short.
fn overlay_by_path(lowers: &[Layer], upper: Option<&Rootfs>) -> Result<OwnedFd> {
    let host = std::fs::File::open("/proc/self/ns/mnt").step("open the mount namespace")?;
    let (area, staging) = stage_area()?;
    let made = (|| {
        let mut held = Vec::new();
        let mut names = Vec::new();
        for (number, lower) in lowers.iter().enumerate() {
            let dir = match lower {
                Layer::Path(path) => open_dir(path)?,
                Layer::Tree(tree) => {
                    let place = number.to_string();
                    rustix::fs::mkdirat(&staging, place.as_str(), Mode::from_raw_mode(0o700))?;
                    attach(tree.as_fd(), staging.as_fd(), &place).step("attach a layer")?;
                    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    openat(&staging, place.as_str(), flags, Mode::empty())?
                }
            };
            names.push(format!("/proc/self/fd/{}", dir.as_raw_fd()));
            held.push(dir);
        }
        let mut options = format!("lowerdir={}", names.join(":"));
        if let Some(Rootfs {
            upper,
            work,
            volatile,
            selinux_label,
            ..
        }) = upper
        {
            if !selinux_label.is_empty() {
                options.push_str(&format!(",context=\"{selinux_label}\""));
            }
            for (key, path) in [("upperdir", upper), ("workdir", work)] {
                let dir = open_dir(path)?;
                options.push_str(&format!(",{key}=/proc/self/fd/{}", dir.as_raw_fd()));
                held.push(dir);
            }
            if *volatile {
                options.push_str(",volatile");
            }
        }
        rustix::fs::mkdirat(&staging, "m", Mode::from_raw_mode(0o700))?;
        rustix::process::fchdir(&staging)?;
        let options = std::ffi::CString::new(options)
            .map_err(|_| Failure::new("a layer's path holds a NUL"))?;
        mount(
            "overlay",
            "m",
            "overlay",
            MountFlags::empty(),
            Some(options.as_c_str()),
        )
        .step("mount the overlay")?;
        clone_tree(staging.as_fd(), "m", false).step("detach the overlay")
    })();
    drop(staging);
    drop(area);
    rustix::process::chdir("/").step("leave the staging folder")?;
    sys::setns(host.as_fd(), libc::CLONE_NEWNS).step("return to the host's mount namespace")?;
    made
}

fn open_dir(path: &str) -> Result<OwnedFd> {
    openat(
        CWD,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step_with(|| format!("open {path}"))
}

/// A copy of the mount namespace with a private tmpfs in it, over a folder that nothing here needs.
fn stage_area() -> Result<(OwnedFd, OwnedFd)> {
    sys::unshare(libc::CLONE_NEWNS).step("copy the mount namespace")?;
    let all = rustix::mount::MountPropagationFlags::DOWNSTREAM
        | rustix::mount::MountPropagationFlags::REC;
    joey_failpoint::hit("mount.change").step("keep mounts from the host")?;
    rustix::mount::mount_change("/", all).step("keep mounts from the host")?;
    let area = template::tmpfs(&[("size", "1m"), ("mode", "0700")])?;
    attach(area.as_fd(), CWD, "/sys").step("attach the staging folder")?;
    let root = openat(
        &area,
        ".",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    Ok((area, root))
}

/// Opens and copies what the volumes are made of; must run before the mount namespace changes.
pub fn open_volumes(binds: &[Bind], pod: &Pod) -> Result<Vec<Source>> {
    binds
        .iter()
        .map(|bind| {
            open_volume(bind, pod).map_err(|failure| {
                let step = format!("mount {} at {}", bind.source, bind.destination);
                prefixed(
                    &bind.error_prefix,
                    Failure {
                        errno: failure.errno,
                        message: format!("{step}: {}", failure.message),
                    },
                )
            })
        })
        .collect()
}

/// Puts the daemon's name of the failure in front.
pub fn prefixed(prefix: &str, failure: Failure) -> Failure {
    if prefix.is_empty() {
        return failure;
    }
    Failure {
        errno: failure.errno,
        message: format!("{prefix}: {}", failure.message),
    }
}

/// A volume's mount before the worker has its own mount namespace.
#[derive(Debug)]
pub enum Source {
    /// Ready.
    Tree(OwnedFd),
    /// An image whose `sub_path` is yet to be found.
    Image(OwnedFd),
    /// The pod's shared memory, in the template.
    Shm,
}

fn is_folder(fd: BorrowedFd<'_>) -> Result<bool> {
    let mode = rustix::fs::fstat(fd).step("look at the sub path")?.st_mode;
    Ok(rustix::fs::FileType::from_raw_mode(mode).is_dir())
}

fn open_volume(bind: &Bind, pod: &Pod) -> Result<Source> {
    if bind.pod_shm {
        return Ok(Source::Shm);
    }
    if !bind.image_layers.is_empty() {
        let user = id_map(bind, pod)?;
        let mut paths = vec![bind.source.clone()];
        paths.extend(bind.image_layers.iter().cloned());
        let tree = overlay(&layers(&paths, user.as_ref().map(IdMap::get))?, None)?;
        return Ok(Source::Image(tree));
    }
    if !bind.selinux_label.is_empty() {
        selinux::relabel(&bind.source, &bind.selinux_label)?;
    }
    let tree = if bind.sub_path.is_empty() {
        clone_tree(CWD, &bind.source, bind.recursive)?
    } else {
        let beneath = open_beneath(open_dir(&bind.source)?.as_fd(), &bind.sub_path)?;
        // An image's sub path is a folder; a volume's may be a file.
        if !bind.error_prefix.is_empty() && !is_folder(beneath.as_fd())? {
            let message = format!("the sub path {} is not a directory", bind.sub_path);
            return Err(Failure::with_errno(libc::ENOTDIR, message));
        }
        clone_tree(beneath.as_fd(), "", bind.recursive)?
    };
    if let Some(user) = id_map(bind, pod)? {
        let change = MountChange {
            userns: Some(user.get().as_fd()),
            recursive: bind.recursive,
            ..MountChange::default()
        };
        sys::mount_setattr(tree.as_fd(), &change).step("map the ids")?;
    }
    set_attributes(tree.as_fd(), bind)?;
    Ok(Source::Tree(tree))
}

fn open_beneath(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    open_within(root, path, OFlags::PATH, resolve).step_with(|| format!("find the sub path {path}"))
}

enum IdMap<'a> {
    Pod(&'a OwnedFd),
    Own(OwnedFd),
}

impl IdMap<'_> {
    fn get(&self) -> &OwnedFd {
        match self {
            Self::Pod(fd) => fd,
            Self::Own(fd) => fd,
        }
    }
}

fn id_map<'a>(bind: &Bind, pod: &'a Pod) -> Result<Option<IdMap<'a>>> {
    if bind.uid_mappings.is_empty() && bind.gid_mappings.is_empty() {
        return Ok(None);
    }
    match &pod.user {
        Some(user)
            if bind.uid_mappings == pod.uid_mappings && bind.gid_mappings == pod.gid_mappings =>
        {
            Ok(Some(IdMap::Pod(user)))
        }
        _ => Ok(Some(IdMap::Own(make_user(
            &bind.uid_mappings,
            &bind.gid_mappings,
        )?))),
    }
}

fn set_attributes(tree: BorrowedFd<'_>, bind: &Bind) -> Result<()> {
    let propagation = match bind.propagation() {
        Propagation::Private => libc::MS_PRIVATE,
        Propagation::HostToContainer => libc::MS_SLAVE,
        Propagation::Bidirectional => libc::MS_SHARED,
    };
    let change = MountChange {
        propagation,
        recursive: true,
        ..MountChange::default()
    };
    sys::mount_setattr(tree, &change).step("set the propagation")?;
    let mut set = 0;
    if bind.readonly || bind.recursive_readonly {
        set |= libc::MOUNT_ATTR_RDONLY;
    }
    if bind.noexec {
        set |= libc::MOUNT_ATTR_NOEXEC;
    }
    if set != 0 {
        let change = MountChange {
            set,
            recursive: bind.recursive_readonly,
            ..MountChange::default()
        };
        sys::mount_setattr(tree, &change).step("make it read-only")?;
    }
    Ok(())
}

/// Finishes the volumes in the worker's own mount namespace.
pub fn finish_volumes(
    binds: &[Bind],
    sources: Vec<Source>,
    image_place: &str,
) -> Result<Vec<Volume>> {
    binds
        .iter()
        .zip(sources)
        .map(|(bind, source)| {
            let finish = || -> Result<Volume> {
                let tree = match source {
                    Source::Tree(tree) => tree,
                    Source::Shm => clone_tree(CWD, template::SHM, false)
                        .step("copy the pod's shared memory")?,
                    Source::Image(tree) => finish_image(tree, bind, image_place)?,
                };
                let directory =
                    rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&tree)?.st_mode).is_dir();
                let destination = bind.destination.clone();
                Ok(Volume {
                    tree,
                    destination,
                    error_prefix: bind.error_prefix.clone(),
                    directory,
                })
            };
            finish()
                .step_with(|| format!("mount {} at {}", bind.source, bind.destination))
                .map_err(|failure| prefixed(&bind.error_prefix, failure))
        })
        .collect()
}

fn finish_image(tree: OwnedFd, bind: &Bind, place: &str) -> Result<OwnedFd> {
    let found = if bind.sub_path.is_empty() {
        tree
    } else {
        // A part can be copied only from an attached mount (before 6.15).
        attach(tree.as_fd(), CWD, place).step("attach the image")?;
        let beneath = open_beneath(tree.as_fd(), &bind.sub_path)?;
        if !rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&beneath)?.st_mode).is_dir() {
            let message = format!("the sub path {} is not a directory", bind.sub_path);
            return Err(Failure::with_errno(Errno::NOTDIR.raw_os_error(), message));
        }
        let part = clone_tree(beneath.as_fd(), "", false)?;
        drop(beneath);
        drop(tree);
        joey_failpoint::hit("mount.detach")?;
        unmount(place, UnmountFlags::DETACH).step("detach the image")?;
        part
    };
    let mut bind = bind.clone();
    bind.readonly = true;
    set_attributes(found.as_fd(), &bind)?;
    Ok(found)
}
