//! A pod of a real shim on a root file system made of busybox, and its clean-up.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use joey_shim_client::proto::{
    Capabilities, Exec, Exit, NamespaceMode, Process, Rootfs, Start, StartPod, StartReply, User,
};
use joey_shim_client::{ExecStreams, Executed, Shim, ShimBinary, ShimError, ShimEvent};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::sync::broadcast::Receiver;

static NUMBER: AtomicU32 = AtomicU32::new(0);
const CONTROLLERS: [&str; 3] = ["memory", "pids", "devices"];
pub const DEFAULT_CAPABILITIES: [&str; 9] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
];

/// The shim's program: `$JOEY_SHIM`, or the one built for the static target beside this test.
pub fn binary() -> ShimBinary {
    let path = std::env::var_os("JOEY_SHIM").map_or_else(
        || {
            let test = std::env::current_exe().unwrap();
            let target = test.ancestors().nth(3).unwrap();
            target.join("x86_64-unknown-linux-gnu/debug/joey-shim")
        },
        PathBuf::from,
    );
    ShimBinary::load(&path).unwrap_or_else(|error| {
        panic!("{error}: build it with RUSTFLAGS=-Ctarget-feature=+crt-static cargo build -p joey-shim --target x86_64-unknown-linux-gnu")
    })
}

pub struct Pod {
    pub dir: TempDir,
    pub shim: Shim,
    pub events: Receiver<ShimEvent>,
    /// Of the shared PID namespace, on the host; 0 without.
    pub init_pid: i32,
    name: String,
    cgroups: Vec<PathBuf>,
}

pub fn pod_request() -> StartPod {
    StartPod {
        pod_id: "pod".into(),
        new_network: true,
        new_ipc: true,
        new_uts: true,
        hostname: "inside".into(),
        shm_bytes: 8 << 20,
        ..StartPod::default()
    }
}

impl Pod {
    pub async fn new() -> Self {
        Self::with(pod_request()).await
    }

    pub async fn with(request: StartPod) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        fs::create_dir(&run).unwrap();
        let shim = Shim::spawn(&binary(), "pod", &run).await.unwrap();
        let events = shim.events();
        let init_pid = shim.start_pod(request).await.unwrap().init_pid;
        let name = format!(
            "joey-shim-test-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let pod = Self {
            dir,
            shim,
            events,
            init_pid,
            name,
            cgroups: Vec::new(),
        };
        make_root(&pod.root());
        pod
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub fn log(&self, id: &str) -> String {
        fs::read_to_string(self.dir.path().join(id).join("log")).unwrap_or_default()
    }

    /// The log without times.
    pub fn log_lines(&self, id: &str) -> Vec<String> {
        self.log(id)
            .lines()
            .map(|line| line.split_once(' ').unwrap().1.to_owned())
            .collect()
    }

    /// A container's cgroup folders, made.
    pub fn cgroup(&mut self, id: &str) -> Vec<String> {
        let mut made = Vec::new();
        for dir in CONTROLLERS.map(|controller| Path::new("/sys/fs/cgroup").join(controller)) {
            if dir.is_dir() {
                made.push(dir.join(format!("{}-{id}", self.name)));
            }
        }
        if made.is_empty() {
            made.push(Path::new("/sys/fs/cgroup").join(format!("{}-{id}", self.name)));
        }
        for dir in &made {
            fs::create_dir(dir).unwrap();
            self.cgroups.push(dir.clone());
        }
        made.iter()
            .map(|dir| dir.to_string_lossy().into_owned())
            .collect()
    }

    /// A request that runs a shell script.
    pub fn request(&mut self, id: &str, script: &str) -> Start {
        let dir = self.dir.path().join(id);
        for part in ["upper", "work", "bundle"] {
            fs::create_dir_all(dir.join(part)).unwrap();
        }
        fs::write(dir.join("bundle/config.json"), spec().to_string()).unwrap();
        let path = |part: &str| dir.join(part).to_string_lossy().into_owned();
        let cgroup_dirs = self.cgroup(id);
        let oom_file = if cgroup_dirs.len() > 1 {
            "memory.oom_control"
        } else {
            "memory.events"
        };
        Start {
            container_id: id.into(),
            bundle: path("bundle"),
            rootfs: Some(Rootfs {
                lowers: vec![self.root().to_string_lossy().into_owned()],
                upper: path("upper"),
                work: path("work"),
                ..Rootfs::default()
            }),
            process: Some(process(&["/bin/sh", "-c", script])),
            pid_mode: NamespaceMode::Private.into(),
            oom_file: format!("{}/{oom_file}", cgroup_dirs[0]),
            cgroup_dirs,
            log_path: path("log"),
            ..Start::default()
        }
    }

    pub async fn start(&mut self, id: &str, script: &str) -> StartReply {
        let request = self.request(id, script);
        self.shim.start(request).await.unwrap()
    }

    /// Starts a container and waits for its end.
    pub async fn run(&mut self, id: &str, script: &str) -> Exit {
        let request = self.request(id, script);
        self.run_request(request).await
    }

    pub async fn run_request(&mut self, request: Start) -> Exit {
        let id = request.container_id.clone();
        self.shim.start(request).await.unwrap();
        self.exit(&id).await
    }

    pub async fn exit(&mut self, id: &str) -> Exit {
        loop {
            if let ShimEvent::Exit(exit) = self.event().await
                && exit.container_id == id
            {
                return exit;
            }
        }
    }

    pub async fn event(&mut self) -> ShimEvent {
        tokio::time::timeout(Duration::from_secs(20), self.events.recv())
            .await
            .expect("an event")
            .unwrap()
    }

    /// Runs a script in a container; its code and output.
    pub async fn exec(&mut self, id: &str, script: &str) -> (i32, String) {
        let (read, write) = pipe();
        let error = write.try_clone().unwrap();
        let streams = ExecStreams {
            stdout: Some(write),
            stderr: Some(error),
            ..ExecStreams::default()
        };
        let done = self
            .try_exec(id, process(&["/bin/sh", "-c", script]), streams)
            .await
            .unwrap();
        let output = read_all(read).await;
        (self.exec_exit(done.exec_id).await, output)
    }

    pub async fn try_exec(
        &mut self,
        id: &str,
        process: Process,
        streams: ExecStreams,
    ) -> Result<Executed, ShimError> {
        let cgroup_dirs = self
            .cgroups
            .iter()
            .filter(|dir| dir.to_string_lossy().ends_with(&format!("-{id}")));
        let cgroup_dirs = cgroup_dirs
            .map(|dir| dir.to_string_lossy().into_owned())
            .collect();
        let request = Exec {
            container_id: id.into(),
            process: Some(process),
            cgroup_dirs,
            ..Exec::default()
        };
        self.shim.exec(request, streams).await
    }

    pub async fn exec_exit(&mut self, exec_id: u64) -> i32 {
        loop {
            if let ShimEvent::ExecExit(exit) = self.event().await
                && exit.exec_id == exec_id
            {
                return exit.code;
            }
        }
    }

    /// Ends the pod; nothing of it may be left.
    pub async fn end(mut self) {
        let pid = self.shim.pid();
        self.shim.shutdown(true).await.unwrap();
        eventually("the shim ends", || {
            !Path::new(&format!("/proc/{pid}")).exists()
        })
        .await;
        for dir in std::mem::take(&mut self.cgroups) {
            eventually("the cgroup empties", || fs::remove_dir(&dir).is_ok()).await;
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !mounts.contains(&*self.dir.path().to_string_lossy()),
            "mounts are left"
        );
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // After a failed assertion: what is left of the pod must not outlive the test.
        if std::thread::panicking() {
            for dir in &self.cgroups {
                for pid in fs::read_to_string(dir.join("cgroup.procs"))
                    .unwrap_or_default()
                    .lines()
                {
                    if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
                        rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
                    }
                }
            }
            rustix::process::pidfd_send_signal(self.shim.pidfd(), rustix::process::Signal::KILL)
                .ok();
            std::thread::sleep(Duration::from_millis(200));
        }
        for dir in &self.cgroups {
            fs::remove_dir(dir).ok();
        }
    }
}

pub async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < Duration::from_secs(10), "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap()
}

pub async fn read_all(fd: OwnedFd) -> String {
    let mut file = tokio::fs::File::from_std(fs::File::from(fd));
    let mut bytes = Vec::new();
    let read = file.read_to_end(&mut bytes);
    tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .expect("the end of the output")
        .ok();
    String::from_utf8_lossy(&bytes).into_owned()
}

pub fn capabilities(extra: &[&str]) -> Capabilities {
    let names: Vec<String> = DEFAULT_CAPABILITIES
        .iter()
        .chain(extra)
        .map(|&name| name.to_owned())
        .collect();
    Capabilities {
        bounding: names.clone(),
        effective: names.clone(),
        permitted: names,
        ..Capabilities::default()
    }
}

pub fn process(args: &[&str]) -> Process {
    Process {
        args: args.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
        env: vec![b"PATH=/bin".to_vec()],
        cwd: "/".into(),
        user: Some(User::default()),
        capabilities: Some(capabilities(&[])),
        ..Process::default()
    }
}

fn make_root(root: &Path) {
    for dir in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for applet in [
        "sh", "cat", "echo", "sleep", "id", "ls", "mount", "touch", "kill", "head", "dd", "tty",
        "stty", "hostname", "true", "false", "grep", "env", "pwd", "readlink", "stat", "mkdir",
        "wc", "yes", "seq", "ps", "umask", "df",
    ] {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nann:x:1000:1001::/home/ann:/bin/sh\n",
    )
    .unwrap();
    fs::write(
        root.join("etc/group"),
        "root:x:0:\nann:x:1001:\nextra:x:50:ann\n",
    )
    .unwrap();
}

/// What the daemon would write: basic mounts, masked and read-only paths.
pub fn spec() -> Value {
    let mount = |kind: &str, destination: &str, options: &[&str]| json!({"type": kind, "source": kind, "destination": destination, "options": options});
    json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["-"]},
        "mounts": [
            mount("proc", "/proc", &["nosuid", "noexec", "nodev"]),
            mount("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("devpts", "/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
            mount("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
            mount("cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"},
                {"type": "cgroup"},
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
