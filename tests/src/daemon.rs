//! A daemon of the test's own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use joey_failpoint::Board;

use crate::client::Client;
use crate::disk::SmallDisk;

/// The failpoints' file in a daemon's folder.
const BOARD: &str = "failpoints";

/// What a daemon is started with.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Files in its folder, `config.toml` among them; `FOLDER` in them is that folder.
    pub files: Vec<(String, String)>,
    /// It was built with failpoints.
    pub failpoints: bool,
    /// Its root and state folders are on small file systems.
    pub small_disk: bool,
}

impl Setup {
    /// A configuration.
    #[must_use]
    pub fn with(toml: &str) -> Self {
        Self {
            files: vec![("config.toml".into(), toml.into())],
            ..Self::default()
        }
    }
}

/// A running `joeyd` with its own root and state folders; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    process: Child,
    disk: Option<SmallDisk>,
    folder: tempfile::TempDir,
}

impl Daemon {
    /// Starts a daemon on empty folders.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// Starts a daemon whose configuration has `toml` in it.
    pub async fn start_with(toml: &str) -> Self {
        Self::start_as(&Setup::with(toml)).await
    }

    /// Starts a daemon in a folder of its own.
    pub async fn start_as(setup: &Setup) -> Self {
        // Short: the path of a unix socket has 107 bytes at most.
        let folder = tempfile::Builder::new()
            .prefix("joey-")
            .tempdir_in("/run")
            .unwrap();
        let path = folder.path().to_string_lossy().into_owned();
        for (name, text) in &setup.files {
            let file = folder.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text.replace("FOLDER", &path)).unwrap();
        }
        own_groups(folder.path());
        let disk = setup.small_disk.then(|| SmallDisk::new(folder.path()));
        if setup.failpoints {
            Board::create(&folder.path().join(BOARD)).unwrap();
        }
        let process = spawn(folder.path());
        let mut daemon = Self {
            process,
            disk,
            folder,
        };
        daemon.ready().await;
        daemon
    }

    /// The board of a daemon with failpoints.
    #[must_use]
    pub fn board(&self) -> Board {
        Board::open(&self.folder.path().join(BOARD)).unwrap()
    }

    /// The disk of a daemon that has a small one.
    #[must_use]
    pub fn disk(&self) -> &SmallDisk {
        self.disk.as_ref().unwrap()
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The processes of its pods' shims.
    #[must_use]
    pub fn shims(&self) -> Vec<rustix::process::Pid> {
        let shims = crate::leaks::shims(&self.state());
        shims
            .into_iter()
            .filter_map(rustix::process::Pid::from_raw)
            .collect()
    }

    /// Where its folders are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `/run/joey` of this daemon.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// `/var/lib/joey` of this daemon.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("joey.sock")
    }

    /// A CRI client.
    pub async fn client(&self) -> Client {
        Client::connect(&self.socket()).await
    }

    /// SIGKILL and a new start on the same folders.
    pub async fn kill_and_restart(&mut self) {
        self.kill();
        self.restart().await;
    }

    /// A new start after [`Daemon::kill`].
    pub async fn restart(&mut self) {
        self.begin_restart();
        self.ready().await;
    }

    /// Begins a new start after [`Daemon::kill`], and waits for nothing.
    pub fn begin_restart(&mut self) {
        self.process = spawn(self.folder.path());
    }

    /// Whether its process has ended by itself, or by what a failpoint does.
    pub fn has_ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// SIGTERM and the daemon's end.
    pub fn terminate(&mut self) -> std::process::ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.process.wait().unwrap()
    }

    /// SIGHUP.
    pub fn reload(&self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until it answers.
    pub async fn ready(&mut self) {
        for _ in 0..400 {
            if let Some(client) = Client::try_connect(&self.socket()).await
                && client
                    .runtime()
                    .version(joey_proto::cri::VersionRequest::default())
                    .await
                    .is_ok()
            {
                return;
            }
            if let Some(status) = self.process.try_wait().unwrap() {
                panic!("joeyd ended with {status}:\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("joeyd does not answer:\n{}", self.log());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- joeyd's log\n{}---", self.log());
        }
        drop(self.process.kill());
        drop(self.process.wait());
        for pid in self.shims() {
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        remove_own_groups(self.folder.path());
    }
}

/// Where the binaries under test are.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let folder =
        std::env::var_os("JOEY_BIN").expect("JOEY_BIN: the folder of joeyd, joey, joey-shim");
    PathBuf::from(folder).join(name)
}

/// Gives the daemon a cgroup parent of its own, so that the leak check sees no other's groups.
/// systemd's slices need no other name: there is one test at a time in a machine with systemd.
fn own_groups(folder: &Path) {
    if Path::new("/run/systemd/system").exists() {
        return;
    }
    let name = folder.file_name().unwrap().to_string_lossy();
    let extra = folder.join("conf.d");
    std::fs::create_dir(&extra).unwrap();
    let text = format!("[cgroup]\ndefault_parent = \"/{name}\"\n");
    std::fs::write(extra.join("groups.toml"), text).unwrap();
}

/// Ends what a failed test left in the daemon's own groups and removes them. What was killed takes
/// its time to leave a group.
fn remove_own_groups(folder: &Path) {
    let name = folder.file_name().unwrap_or_default();
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(top).into_iter().flatten().flatten();
    let roots = hierarchies.map(|entry| entry.path());
    for root in roots.chain([top.to_owned()]) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while !remove_groups(&root.join(name)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// False where something of them is left.
fn remove_groups(group: &Path) -> bool {
    let processes = std::fs::read_to_string(group.join("cgroup.procs"));
    for pid in processes.unwrap_or_default().lines() {
        if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    match std::fs::remove_dir(group) {
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        Ok(()) => true,
    }
}

fn spawn(folder: &Path) -> Child {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .unwrap();
    let board = folder.join(BOARD);
    let mut command = if board.exists() {
        let programs = std::env::var_os("JOEY_FAILPOINT_BIN")
            .expect("JOEY_FAILPOINT_BIN: the folder of a joeyd and a joey-shim with failpoints");
        let mut command = Command::new(Path::new(&programs).join("joeyd"));
        command.env(joey_failpoint::VARIABLE, board);
        command
    } else {
        Command::new(binary("joeyd"))
    };
    command
        .arg("--config")
        .arg(folder.join("config.toml"))
        .arg("--root")
        .arg(folder.join("root"))
        .arg("--state")
        .arg(folder.join("state"))
        .arg("--listen")
        .arg(format!("unix://{}", folder.join("joey.sock").display()))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("joeyd")
}
