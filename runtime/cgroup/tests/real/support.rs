//! A parent and processes of each test's own.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use joey_cgroup::{Cgroups, Driver, DriverChoice, Group, Resources, default_devices};
use tokio::runtime::Runtime;

/// One runtime for all: the connection to systemd lives in the one that made it.
pub fn run(test: impl Future<Output = ()>) {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
    RUNTIME.block_on(test);
}

/// A parent that is removed with everything in it.
pub struct Parent {
    pub cgroups: Cgroups,
    pub name: String,
}

impl Parent {
    pub fn new(test: &str) -> Option<Self> {
        let skip = |why: &str| {
            println!("skipped: {why}");
            None
        };
        if !rustix::process::geteuid().is_root() {
            return skip("needs root");
        }
        // On a host that systemd runs, the other driver is tested by asking for it.
        let choice = match std::env::var("JOEY_TEST_CGROUP_DRIVER").as_deref() {
            Ok("cgroupfs") => DriverChoice::Cgroupfs,
            _ => DriverChoice::Auto,
        };
        let Ok(cgroups) = Cgroups::detect(choice) else {
            return skip("no cgroups are mounted");
        };
        let pid = std::process::id();
        let name = match cgroups.driver() {
            Driver::Cgroupfs => format!("/joey-test-{pid}-{test}/pod"),
            Driver::Systemd => format!("joeytest{pid}_{test}.slice"),
        };
        let parent = Self { cgroups, name };
        let root = parent.group().dirs().pop()?;
        let writable = root.ancestors().find(|dir| dir.exists());
        let writable = writable.is_some_and(|dir| !is_read_only(dir));
        if writable {
            Some(parent)
        } else {
            skip("cgroups are mounted read-only")
        }
    }

    pub fn group(&self) -> Group {
        self.cgroups.parent_group(&self.name)
    }

    pub async fn create(&self, resources: &Resources) -> Group {
        self.cgroups
            .create(&self.name, "c1", resources)
            .await
            .unwrap()
    }

    pub async fn end(self) {
        self.group().remove().await.unwrap();
        for dir in self.group().dirs() {
            if self.cgroups.driver() == Driver::Cgroupfs {
                fs::remove_dir(dir.parent().unwrap()).unwrap();
            }
            assert!(!dir.exists(), "{}", dir.display());
        }
    }
}

fn is_read_only(dir: &Path) -> bool {
    rustix::fs::statvfs(dir).is_ok_and(|s| s.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// A shell that waits for a line on its standard input before it goes on.
pub struct Inside(pub Child);

impl Inside {
    pub fn start(script: &str) -> Self {
        let child = Command::new("/bin/sh")
            .args(["-c", &format!("read go; {script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    pub fn enter(&self, group: &Group) {
        for dir in group.dirs() {
            fs::write(dir.join("cgroup.procs"), self.0.id().to_string()).unwrap();
        }
        group.release();
    }

    pub fn go(mut self) -> (std::process::ExitStatus, String) {
        let mut stdin = self.0.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, b"\n").unwrap();
        drop(stdin);
        let output = self.0.wait_with_output().unwrap();
        (output.status, String::from_utf8(output.stdout).unwrap())
    }
}

pub fn limits() -> Resources {
    Resources {
        cpu_period: Some(100_000),
        cpu_quota: Some(50_000),
        cpu_shares: Some(512),
        memory_limit: Some(64 << 20),
        memory_swap: Some(64 << 20),
        pids_limit: Some(100),
        devices: Some(default_devices()),
        ..Resources::default()
    }
}
