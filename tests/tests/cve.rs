//! Escapes that other runtimes had, each tried for real against the running daemon.
//!
//! Every test ends with [`Node::assert_untouched`]: the node is as it was before the attack.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use joey_proto::cri::*;
use joey_tests::{ImageBuilder, Stand, bind, namespaces, security, shims};
use rustix::fs::SealFlags;

const SECRET: &str = "what only the node knows";
/// Where attacks write that would change the whole node.
const KERNEL_FILES: [&str; 3] = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/modprobe",
];

/// What an attack must neither read nor change.
struct Node {
    /// A folder with a secret, a program and an empty folder.
    folder: tempfile::TempDir,
    before: BTreeMap<String, String>,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::write(folder.path().join("secret"), SECRET).unwrap();
        std::fs::copy("/bin/busybox", folder.path().join("tool")).unwrap();
        std::fs::create_dir(folder.path().join("empty")).unwrap();
        let before = Self::state(folder.path());
        Self { folder, before }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Its path as seen from the root.
    fn name(&self) -> String {
        self.path().to_string_lossy().into_owned()
    }

    /// The same through the root of a process of the node.
    fn by_procfs(&self) -> String {
        format!("/proc/{}/root{}", std::process::id(), self.name())
    }

    fn state(folder: &Path) -> BTreeMap<String, String> {
        let mut state = BTreeMap::new();
        for folder in [folder, &folder.join("empty"), Path::new("/dev")] {
            let entries = std::fs::read_dir(folder).unwrap().flatten();
            let mut names: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            names.sort();
            state.insert(folder.display().to_string(), format!("{names:?}"));
        }
        let secret = folder.join("secret");
        let shim = joey_tests::binary("joey-shim");
        for path in [&secret, &folder.join("tool"), &shim, Path::new("/dev/null")] {
            let metadata = std::fs::symlink_metadata(path).unwrap();
            use std::os::unix::fs::MetadataExt;
            let (mode, size, changed) = (metadata.mode(), metadata.len(), metadata.mtime());
            state.insert(
                path.display().to_string(),
                format!("{mode:o} {size} {changed}"),
            );
        }
        for path in KERNEL_FILES {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            state.insert(path.to_owned(), text);
        }
        state
    }

    fn assert_untouched(&self) {
        let now = Self::state(self.path());
        for (path, before) in &self.before {
            assert_eq!(now.get(path), Some(before), "{path}; left: now");
        }
    }
}

/// What a container wrote, or why it did not start. It is gone afterwards.
async fn attempt(
    stand: &Stand,
    pod: &str,
    container: &ContainerConfig,
    config: &PodSandboxConfig,
) -> Result<String, String> {
    let id = match stand.client.create(pod, container, config).await {
        Ok(id) => id,
        Err(error) => return Err(error.message().to_owned()),
    };
    let started = stand.client.start(&id).await;
    let log = match &started {
        Ok(()) => {
            let status = stand.client.ended(&id).await;
            std::fs::read_to_string(status.log_path).unwrap_or_default()
        }
        Err(_) => String::new(),
    };
    stand.client.remove(&id).await;
    let name = &container.metadata.as_ref().unwrap().name;
    drop(std::fs::remove_file(
        stand.log(&config.metadata.as_ref().unwrap().name, name),
    ));
    started.map_err(|error| error.message().to_owned())?;
    let lines = log.lines().filter_map(|line| line.splitn(4, ' ').nth(3));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

async fn probe_image(stand: &Stand) -> String {
    let probe = Path::new(env!("CARGO_BIN_EXE_probe"));
    stand.image("probe", |image| image.program(probe)).await
}

fn with_image(mut container: ContainerConfig, image: &str) -> ContainerConfig {
    container.image.as_mut().unwrap().image = image.to_owned();
    container
}

/// The container's root watches for processes that enter, and takes hold of them.
///
/// Fails when the worker enters with what it inherits: without `close_all_but` in front of `setns`
/// the descriptors of its cgroups are among what SYS_PTRACE shows.
#[tokio::test]
async fn cve_2016_9962_what_enters_a_container_brings_nothing_of_the_node() {
    let stand = Stand::start().await;
    let node = Node::new();
    let image = probe_image(&stand).await;
    let config = stand.pod_config("enter");
    let pod = stand.client.run_pod(&config).await;
    for (name, tracer) in [("plain", false), ("tracer", true)] {
        let watch = stand.container(name, &["probe", "seize", "4"]);
        let mut watch = with_image(watch, &image);
        if tracer {
            security(&mut watch).capabilities = Some(Capability {
                add_capabilities: vec!["SYS_PTRACE".into()],
                ..Default::default()
            });
        }
        let id = stand.client.run(&pod, &watch, &config).await;
        let begun = std::time::Instant::now();
        while begun.elapsed().as_millis() < 3000 {
            let request = ExecSyncRequest {
                container_id: id.clone(),
                cmd: vec!["true".into()],
                timeout: 10,
            };
            // One that is traced does not come back.
            let call = stand.client.runtime().exec_sync(request).await;
            assert!(tracer || call.is_ok(), "{call:?}");
        }
        let status = stand.client.ended(&id).await;
        let log = std::fs::read_to_string(status.log_path).unwrap();
        let mut seen = false;
        for line in log.lines().filter_map(|line| line.splitn(4, ' ').nth(3)) {
            let (what, target) = line.split_once(' ').unwrap();
            match what {
                "seen" => seen = target != "0",
                // With SYS_PTRACE a process may be held, but there is nothing in its hands.
                "fd" if tracer => {
                    let ours = [
                        "socket:",
                        "pipe:",
                        "/dev/null",
                        "anon_inode:[pidfd]",
                        "pidfd:",
                    ];
                    assert!(ours.iter().any(|kind| target.starts_with(kind)), "{line}");
                }
                "cwd" | "root" if tracer => assert_eq!(target, "inside", "{line}"),
                "exe" | "mem" | "trace" if tracer => {}
                _ => panic!("the root of a container took hold of what enters it: {line}"),
            }
        }
        assert!(seen, "the attack saw nobody enter: {log}");
    }
    stand.client.remove_pod(&pod).await;
    stand.assert_clean().await;
    node.assert_untouched();
}

/// The container makes the runtime execute itself and writes to its program.
///
/// Fails without the seals of `ShimBinary::load`, and when shims run from the file on the disk.
#[tokio::test]
async fn cve_2019_5736_the_runtimes_program_can_not_be_overwritten() {
    let stand = Stand::start().await;
    let node = Node::new();
    let probe = Path::new(env!("CARGO_BIN_EXE_probe"));
    let image = stand.image("overwrite", |image| {
        image
            .program(probe)
            .file("bin/script", 0o755, b"#!/proc/self/exe\n")
            .symlink("bin/self", "/proc/self/exe")
    });
    let image = image.await;
    let config = stand.pod_config("overwrite");
    let pod = stand.client.run_pod(&config).await;
    let attack = stand.container("attack", &["probe", "overwrite", "5"]);
    let id = stand
        .client
        .run(&pod, &with_image(attack, &image), &config)
        .await;
    let begun = std::time::Instant::now();
    while begun.elapsed().as_millis() < 4000 {
        for program in ["/proc/self/exe", "/bin/self", "/bin/script"] {
            let request = ExecSyncRequest {
                container_id: id.clone(),
                cmd: vec![program.into()],
                timeout: 10,
            };
            // Whatever it says: it is the shim's program, or not executable.
            drop(stand.client.runtime().exec_sync(request).await);
        }
    }
    let status = stand.client.ended(&id).await;
    let log = std::fs::read_to_string(status.log_path).unwrap();
    assert!(log.contains("won 0"), "{log}");
    assert!(
        !log.contains("seen 0"),
        "the attack never saw the program: {log}"
    );

    for program in ["/proc/self/exe", "/bin/script"] {
        let init = with_image(stand.container("init", &[program]), &image);
        drop(attempt(&stand, &pod, &init, &config).await);
    }
    for pid in shims(&stand.daemon.state()) {
        let path = format!("/proc/{pid}/exe");
        let link = std::fs::read_link(&path).unwrap();
        assert!(link.to_string_lossy().starts_with("/memfd:"), "{link:?}");
        let seals = rustix::fs::fcntl_get_seals(File::open(&path).unwrap()).unwrap();
        let wanted = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        assert!(seals.contains(wanted), "{seals:?}");
    }
    stand.client.remove_pod(&pod).await;
    stand.assert_clean().await;
    node.assert_untouched();
}

/// One container swaps a folder with a link of a shared volume while another one's mount point is
/// looked for beneath it.
///
/// Fails when mount points are resolved before the pivot.
#[tokio::test]
async fn cve_2021_30465_a_mount_point_that_is_swapped_does_not_lead_out() {
    let stand = Stand::start().await;
    let node = Node::new();
    let image = probe_image(&stand).await;
    let shared = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::create_dir(shared.path().join("place")).unwrap();
    let up = format!(
        "{}{}",
        "../".repeat(20),
        node.name().trim_start_matches('/')
    );
    std::os::unix::fs::symlink(&up, shared.path().join("link")).unwrap();
    let inner = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::write(inner.path().join("mine"), "").unwrap();
    let config = stand.pod_config("swap");
    let pod = stand.client.run_pod(&config).await;
    let swap = ["probe", "exchange", "/v/place", "/v/link", "1000"];
    let mut swapper = with_image(stand.container("swapper", &swap), &image);
    swapper.mounts = vec![bind(shared.path(), "/v")];
    stand.client.run(&pod, &swapper, &config).await;

    let look = format!(
        "cat {name}/secret /v/place/secret 2>/dev/null; cat /proc/mounts",
        name = node.name()
    );
    let mut inside = 0;
    for _ in 0..15 {
        let mut victim = stand.container("victim", &["sh", "-c", &look]);
        victim.mounts = vec![
            bind(shared.path(), "/v"),
            bind(inner.path(), "/v/place/inner"),
        ];
        // It starts, or is refused: the place may be gone for a moment.
        if let Ok(seen) = attempt(&stand, &pod, &victim, &config).await {
            assert!(!seen.contains(SECRET), "{seen}");
            inside += 1;
        }
        assert!(!node.path().join("inner").exists(), "made on the node");
    }
    assert!(inside > 0, "no container ever started");
    stand.client.remove_pod(&pod).await;
    stand.assert_clean().await;
    node.assert_untouched();
}

/// The same through links of procfs, which lead to the node's root where its processes are seen.
///
/// Fails without `NO_MAGICLINKS` in `inside::mount_point`: folders are made on the node.
#[tokio::test]
async fn cve_2021_30465_links_of_procfs_do_not_lead_out() {
    let stand = Stand::start().await;
    let node = Node::new();
    let out = format!("{}/empty", node.by_procfs());
    let image = stand
        .image("links", |image| image.symlink("out", &out))
        .await;
    let volume = tempfile::tempdir_in("/var/tmp").unwrap();
    let config = stand.pod_config("links");
    let pod = stand.client.run_pod(&config).await;
    let sleeper = || {
        let mut container = with_image(stand.container("main", &["true"]), &image);
        namespaces(&mut container).pid = NamespaceMode::Node.into();
        container
    };
    let mut mounted = sleeper();
    mounted.mounts = vec![bind(volume.path(), "/out/new")];
    let mut device = sleeper();
    device.devices = vec![Device {
        host_path: "/dev/null".into(),
        container_path: "/out/device".into(),
        permissions: "r".into(),
    }];
    let mut folder = sleeper();
    folder.working_dir = "/out/folder".into();
    let mut directly = sleeper();
    directly.working_dir = node.by_procfs();
    let mut hidden = sleeper();
    security(&mut hidden).masked_paths = vec!["/out".into()];
    for (name, container) in [
        ("a mount", mounted),
        ("a device", device),
        ("a working directory", folder),
        ("an existing one", directly),
        ("a mask", hidden),
    ] {
        let tried = attempt(&stand, &pod, &container, &config).await;
        assert!(tried.is_err(), "{name}: {tried:?}");
        node.assert_untouched();
    }
    stand.client.remove_pod(&pod).await;
    stand.assert_clean().await;
    node.assert_untouched();
}

/// The image or a volume puts something else in the place of /proc, /sys and /dev.
///
/// Fails without `refuse_linked_mount_points`, and without the check of the volume at /proc in
/// `inside::attach_volume`.
#[tokio::test]
async fn cve_2023_27561_procfs_is_procfs_and_where_it_belongs() {
    let stand = Stand::start().await;
    let node = Node::new();
    let config = stand.pod_config("places");
    let pod = stand.client.run_pod(&config).await;
    let elsewhere = format!("{}/empty", node.name());
    for place in ["proc", "sys", "dev"] {
        let mut image = ImageBuilder::new();
        image
            .file("bin/sh", 0o755, &std::fs::read("/bin/busybox").unwrap())
            .folder(elsewhere.trim_start_matches('/'), 0o755)
            .symlink(place, &elsewhere);
        let repository = format!("test/{place}");
        let image = stand.registry.push(&repository, "latest", image).await;
        let image = stand.client.pull(&image).await;
        let container = with_image(stand.container("main", &["/bin/sh", "-c", "true"]), &image);
        let tried = attempt(&stand, &pod, &container, &config).await;
        let error = tried.expect_err(place);
        assert!(error.contains(&format!("/{place} ")), "{error}");
        node.assert_untouched();
    }

    let fake = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::create_dir_all(fake.path().join("self/attr")).unwrap();
    std::fs::write(fake.path().join("self/attr/exec"), "").unwrap();
    let mut container = stand.container("main", &["true"]);
    container.mounts = vec![bind(fake.path(), "/proc")];
    let error = attempt(&stand, &pod, &container, &config)
        .await
        .unwrap_err();
    assert!(error.contains("/proc"), "{error}");
    // The node's own is procfs; what is asked to be hidden of it is.
    let mut container = stand.container("main", &["cat", "/proc/1/comm", "/proc/keys"]);
    container.mounts = vec![bind(Path::new("/proc"), "/proc")];
    security(&mut container).masked_paths = vec!["/proc/keys".into()];
    let seen = attempt(&stand, &pod, &container, &config).await.unwrap();
    let comm = std::fs::read_to_string("/proc/1/comm").unwrap();
    assert_eq!(seen, comm.trim());

    stand.client.remove_pod(&pod).await;
    stand.assert_clean().await;
    node.assert_untouched();
}

/// The working directory and the program are named through descriptors of the process that becomes
/// the container's.
///
/// Fails without `Stage::close_others` where a cgroup v2 hierarchy is mounted: its folder is open.
#[tokio::test]
async fn cve_2024_21626_no_descriptor_leads_out() {
    let stand = Stand::start().await;
    let node = Node::new();
    let config = stand.pod_config("descriptors");
    let pod = stand.client.run_pod(&config).await;
    let by_procfs = node.by_procfs();
    let out: Vec<String> = (3..40)
        .flat_map(|fd| {
            let fd = format!("/proc/self/fd/{fd}");
            // Up from a folder of the node, or down a procfs that shows its processes.
            let up = format!("{fd}{}{}", "/..".repeat(16), node.name());
            [up, by_procfs.replacen("/proc", &fd, 1)]
        })
        .collect();
    // The program is looked for in every one of them.
    let search = KeyValue {
        key: "PATH".into(),
        value: out.join(":").into(),
    };
    let mut container = stand.container("main", &["tool", "id"]);
    container.envs = vec![search.clone()];
    let tried = attempt(&stand, &pod, &container, &config).await;
    let error = tried.expect_err("a program of the node ran");
    assert!(error.contains("not found"), "{error}");
    let mut container = stand.container("running", &["/bin/sleep", "1000"]);
    container.envs = vec![search];
    let id = stand.client.run(&pod, &container, &config).await;
    let request = ExecSyncRequest {
        container_id: id,
        cmd: vec!["tool".into(), "id".into()],
        timeout: 10,
    };
    let tried = stand.client.runtime().exec_sync(request).await;
    let seen = tried.map(|reply| reply.into_inner().stdout);
    assert!(seen.clone().unwrap_or_default().is_empty(), "{seen:?}");
    for out in out {
        let mut container = stand.container("main", &["cat", "secret"]);
        container.working_dir.clone_from(&out);
        let tried = attempt(&stand, &pod, &container, &config).await;
        let seen = tried.unwrap_or_default();
        assert!(!seen.contains(SECRET), "{out}: {seen}");
    }
    stand.client.remove_pod(&pod).await;
    stand.assert_clean().await;
    node.assert_untouched();
}

/// A volume at /dev holds a link for /dev/null, by which a masked path would be covered with the
/// link's target, writable.
///
/// Fails when /dev/null is looked for after the volumes and its kind is not checked.
#[tokio::test]
async fn cve_2025_31133_a_masked_path_is_covered_by_the_real_null_device() {
    let stand = Stand::start().await;
    let node = Node::new();
    let image = probe_image(&stand).await;
    let dev = tempfile::tempdir_in("/var/tmp").unwrap();
    for folder in ["pts", "shm", "mqueue"] {
        std::fs::create_dir(dev.path().join(folder)).unwrap();
    }
    std::os::unix::fs::symlink(KERNEL_FILES[0], dev.path().join("null")).unwrap();
    std::fs::write(dev.path().join("plain"), "").unwrap();
    let config = stand.pod_config("null");
    let pod = stand.client.run_pod(&config).await;
    let swap = ["probe", "exchange", "/v/null", "/v/plain", "1000"];
    let mut swapper = with_image(stand.container("swapper", &swap), &image);
    swapper.mounts = vec![bind(dev.path(), "/v")];
    for round in 0..8 {
        if round == 4 {
            stand.client.run(&pod, &swapper, &config).await;
        }
        let script = "cat /proc/keys; stat -c %F,%t:%T /proc/keys; \
                      echo '|/bin/evil %P' >/proc/keys; ls -A /sys/firmware";
        let mut container = stand.container("main", &["sh", "-c", script]);
        container.mounts = vec![bind(dev.path(), "/dev")];
        let context = security(&mut container);
        context.masked_paths = vec!["/proc/keys".into(), "/sys/firmware".into()];
        context.readonly_paths = vec!["/proc/sys".into()];
        let seen = attempt(&stand, &pod, &container, &config).await.unwrap();
        assert_eq!(seen, "character special file,1:3");
        let pattern = std::fs::read_to_string(KERNEL_FILES[0]).unwrap();
        assert_eq!(pattern, node.before[KERNEL_FILES[0]]);
    }
    stand.client.remove_pod(&pod).await;
    stand.assert_clean().await;
    node.assert_untouched();
}

/// A volume at /dev holds a link in the place of the console, over whose target the terminal would
/// be mounted before anything is masked.
///
/// Fails without `NOFOLLOW` in `inside::mount_console`.
#[tokio::test]
async fn cve_2025_52565_the_console_is_not_mounted_through_a_link() {
    let stand = Stand::start().await;
    let node = Node::new();
    let dev = tempfile::tempdir_in("/var/tmp").unwrap();
    for folder in ["pts", "shm", "mqueue"] {
        std::fs::create_dir(dev.path().join(folder)).unwrap();
    }
    for target in [
        "/proc/sys/kernel/core_pattern",
        "/proc/1/attr/exec",
        "/etc/passwd",
    ] {
        let console = dev.path().join("console");
        drop(std::fs::remove_file(&console));
        std::os::unix::fs::symlink(target, &console).unwrap();
        let mut config = stand.pod_config("console");
        config.metadata.as_mut().unwrap().name = format!("console{}", target.len());
        let pod = stand.client.run_pod(&config).await;
        let mut container = stand.container("main", &["cat", "/proc/mounts"]);
        container.tty = true;
        container.mounts = vec![
            bind(dev.path(), "/dev"),
            bind(Path::new("/dev/pts"), "/dev/pts"),
        ];
        let tried = attempt(&stand, &pod, &container, &config).await;
        let error = tried.expect_err(target);
        assert!(error.contains("/dev/console"), "{error}");
        stand.client.remove_pod(&pod).await;
    }
    // As a plain file it is a mount point.
    std::fs::remove_file(dev.path().join("console")).unwrap();
    let config = stand.pod_config("plain");
    let pod = stand.client.run_pod(&config).await;
    let mut container = stand.container("main", &["grep", " /dev/console ", "/proc/mounts"]);
    container.tty = true;
    container.mounts = vec![
        bind(dev.path(), "/dev"),
        bind(Path::new("/dev/pts"), "/dev/pts"),
    ];
    let seen = attempt(&stand, &pod, &container, &config).await.unwrap();
    assert!(seen.starts_with("devpts /dev/console devpts"), "{seen}");
    stand.client.remove_pod(&pod).await;
    stand.assert_clean().await;
    node.assert_untouched();
}

/// Volumes in the place of the files of procfs that a runtime writes, so that a label or a setting
/// lands elsewhere.
///
/// Fails without the check of `inside::attach_volume` for what lies beneath /proc.
#[tokio::test]
async fn cve_2025_52881_writes_to_procfs_are_not_redirected() {
    let stand = Stand::start().await;
    let node = Node::new();
    let fake = tempfile::tempdir_in("/var/tmp").unwrap();
    std::os::unix::fs::symlink("/proc/sysrq-trigger", fake.path().join("exec")).unwrap();
    std::fs::write(fake.path().join("file"), "").unwrap();
    let image = stand.image("redirect", |image| {
        image
            .symlink("attr", "/proc/self/attr")
            .symlink("deep/attr", "../proc/thread-self/attr")
            .symlink("sys2", "/proc/sys")
    });
    let image = image.await;
    let mut config = stand.pod_config("redirect");
    let sysctls = &mut config.linux.as_mut().unwrap().sysctls;
    sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
    let pod = stand.client.run_pod(&config).await;
    let folder = fake.path().to_owned();
    let file = fake.path().join("file");
    for (source, destination) in [
        (&folder, "/proc/self/attr"),
        (&folder, "/proc/thread-self/attr"),
        (&folder, "/attr"),
        (&folder, "/deep/attr"),
        (&folder, "/sys2/kernel"),
        (&folder, "/proc/./sys/../sys/kernel"),
        (&file, "/proc/self/attr/exec"),
        (&file, "/attr/exec"),
        (&file, "/proc/self/oom_score_adj"),
        (&file, "/proc/version"),
        (&file, "/sys2/kernel/core_pattern"),
    ] {
        let mut container = with_image(stand.container("main", &["true"]), &image);
        container.mounts = vec![bind(source, destination)];
        let tried = attempt(&stand, &pod, &container, &config).await;
        let error = tried.expect_err(destination);
        assert!(error.contains("procfs"), "{destination}: {error}");
    }
    // What lxcfs offers is allowed, and the pod's setting is the pod's.
    let show = ["cat", "/proc/uptime", "/proc/sys/kernel/shm_rmid_forced"];
    let mut container = with_image(stand.container("main", &show), &image);
    container.mounts = vec![bind(&file, "/proc/uptime")];
    let seen = attempt(&stand, &pod, &container, &config).await.unwrap();
    assert_eq!(seen, "1");
    stand.client.remove_pod(&pod).await;
    stand.assert_clean().await;
    node.assert_untouched();
}
