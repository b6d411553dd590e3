//! Real groups of this host, under a parent of each test's own. Skipped, with a line that says so,
//! where the process may not make any.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use joey_cgroup::{
    Cgroups, CreateError, DeviceKind, DeviceRule, Driver, DriverChoice, Group, Resources,
    StatsReader, Version, default_devices,
};
use tokio::runtime::Runtime;

/// One runtime for all: the connection to systemd lives in the one that made it.
fn run(test: impl Future<Output = ()>) {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
    RUNTIME.block_on(test);
}

/// A parent that is removed with everything in it.
struct Parent {
    cgroups: Cgroups,
    name: String,
}

impl Parent {
    fn new(test: &str) -> Option<Self> {
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

    fn group(&self) -> Group {
        self.cgroups.parent_group(&self.name)
    }

    async fn create(&self, resources: &Resources) -> Group {
        self.cgroups
            .create(&self.name, "c1", resources)
            .await
            .unwrap()
    }

    async fn end(self) {
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
struct Inside(Child);

impl Inside {
    fn start(script: &str) -> Self {
        let child = Command::new("/bin/sh")
            .args(["-c", &format!("read go; {script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn enter(&self, group: &Group) {
        for dir in group.dirs() {
            fs::write(dir.join("cgroup.procs"), self.0.id().to_string()).unwrap();
        }
        group.release();
    }

    fn go(mut self) -> (std::process::ExitStatus, String) {
        let mut stdin = self.0.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, b"\n").unwrap();
        drop(stdin);
        let output = self.0.wait_with_output().unwrap();
        (output.status, String::from_utf8(output.stdout).unwrap())
    }
}

fn limits() -> Resources {
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

#[test]
fn limits_are_in_force_after_create_and_read_back() {
    run(async {
        let Some(parent) = Parent::new("limits") else {
            return;
        };
        let group = parent.create(&limits()).await;
        assert!(group.exists());
        for dir in group.dirs() {
            assert!(dir.is_dir(), "{}", dir.display());
        }
        let found = group.read_back();
        assert_eq!(found.cpu_quota, Some(50_000));
        assert_eq!(found.cpu_period, Some(100_000));
        assert_eq!(found.memory_limit, Some(64 << 20));
        assert_eq!(found.pids_limit, Some(100));
        assert!(found.cpuset_cpus.is_some_and(|c| !c.is_empty()));
        if parent.cgroups.version() != Version::V2 {
            assert_eq!(found.cpu_shares, Some(512));
        }
        let json = serde_json::to_string(&group).unwrap();
        let again: Group = serde_json::from_str(&json).unwrap();
        assert_eq!(again, group);
        again.remove().await.unwrap();
        assert!(!group.exists());
        again.remove().await.unwrap();
        parent.end().await;
    });
}

#[test]
fn updates_go_up_and_down_in_any_order_and_can_remove_limits() {
    run(async {
        let Some(parent) = Parent::new("update") else {
            return;
        };
        let group = parent.create(&limits()).await;
        let step = |memory: i64, quota: i64, period: u64| Resources {
            memory_limit: Some(memory),
            memory_swap: Some(memory),
            cpu_quota: Some(quota),
            cpu_period: Some(period),
            ..Resources::default()
        };
        for (memory, quota, period) in [
            (256 << 20, 200_000, 100_000),
            (32 << 20, 5_000, 10_000),
            (-1, -1, 100_000),
            (48 << 20, 1_000, 1_000),
            (-1, 900_000, 1_000_000),
        ] {
            group.update(&step(memory, quota, period)).await.unwrap();
            let found = group.read_back();
            assert_eq!(found.memory_limit, Some(memory));
            assert_eq!(found.cpu_quota, Some(quota));
            assert_eq!(found.cpu_period, Some(period));
            assert_eq!(found.pids_limit, Some(100), "what is not given stays");
        }
        group.remove().await.unwrap();
        parent.end().await;
    });
}

#[test]
fn a_refused_update_changes_nothing() {
    run(async {
        let Some(parent) = Parent::new("refused") else {
            return;
        };
        let group = parent.create(&limits()).await;
        let before = group.read_back();
        let wanted = Resources {
            cpu_shares: Some(2048),
            cpu_quota: Some(70_000),
            memory_limit: Some(128 << 20),
            memory_swap: Some(128 << 20),
            pids_limit: Some(7),
            cpuset_cpus: Some("4000".to_owned()),
            ..Resources::default()
        };
        let error = group.update(&wanted).await.unwrap_err();
        assert!(error.to_string().contains("cpuset.cpus"), "{error}");
        assert_eq!(group.read_back(), before);
        group.remove().await.unwrap();
        parent.end().await;
    });
}

#[test]
fn a_failed_create_leaves_nothing() {
    run(async {
        let Some(parent) = Parent::new("failed") else {
            return;
        };
        let wanted = Resources {
            cpuset_cpus: Some("4000".to_owned()),
            ..limits()
        };
        let created = parent.cgroups.create(&parent.name, "c1", &wanted).await;
        assert!(
            matches!(created, Err(CreateError::Limits(_))),
            "{created:?}"
        );
        let left = parent.cgroups.open(&parent.name, "c1");
        let end = Instant::now() + Duration::from_secs(5);
        while left.exists() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!left.exists());
        // The parent may have gone with a failed scope.
        parent
            .cgroups
            .create_parent(&parent.name, &Resources::default())
            .await
            .unwrap();
        parent.end().await;
    });
}

#[test]
fn memory_beyond_the_limit_ends_the_process_and_is_counted() {
    run(async {
        let Some(parent) = Parent::new("oom") else {
            return;
        };
        let wanted = Resources {
            memory_limit: Some(16 << 20),
            memory_swap: Some(16 << 20),
            ..Resources::default()
        };
        let group = parent.create(&wanted).await;
        assert!(group.oom_file().exists());
        assert_eq!(group.oom_kills(), 0);
        // The shell stays, so that the group outlives the kill with the systemd driver too.
        let inside = Inside::start("(tail -c 64M /dev/zero | tail -n 1 >/dev/null); read end");
        inside.enter(&group);
        let mut child = inside.0;
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"\n").unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while group.oom_kills() == 0 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(group.oom_kills() > 0);
        let memory = group.memory_stats().unwrap();
        assert_eq!(memory.limit, Some(16 << 20));
        assert!(memory.oom_kills > 0, "{memory:?}");
        // Newer kernels no longer count these on v1.
        let counted = parent.cgroups.version() != Version::V2 || memory.limit_hits > 0;
        assert!(counted, "{memory:?}");
        assert!(memory.max_usage.is_none_or(|max| max > 8 << 20));
        child.kill().unwrap();
        child.wait().unwrap();
        group.remove().await.unwrap();
        parent.end().await;
    });
}

#[test]
fn stats_count_what_a_process_does() {
    run(async {
        let Some(parent) = Parent::new("stats") else {
            return;
        };
        let group = parent.create(&limits()).await;
        let inside = Inside::start("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; read end");
        inside.enter(&group);
        let mut child = inside.0;
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"\n").unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        // The process that held a scope open goes soon after its release.
        while group.process_count() > 1 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let used = |group: &Group| group.cpu_stats().unwrap().usage_ns;
        while used(&group) < 1_000_000 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let stats = group.stats().unwrap();
        assert!(stats.timestamp_ns > 0);
        let cpu = stats.cpu.unwrap();
        assert!(
            cpu.usage_ns >= 1_000_000 && cpu.user_ns + cpu.system_ns > 0,
            "{cpu:?}"
        );
        let memory = stats.memory.unwrap();
        assert!(memory.usage > 0 && memory.working_set <= memory.usage);
        assert_eq!(memory.limit, Some(64 << 20));
        assert_eq!(memory.available, Some((64 << 20) - memory.working_set));
        assert_eq!(stats.pids.unwrap().limit, Some(100));
        assert_eq!(group.processes(), [i32::try_from(child.id()).unwrap()]);
        assert_eq!(group.process_count(), 1);
        child.kill().unwrap();
        child.wait().unwrap();
        group.remove().await.unwrap();
        assert!(group.stats().is_none());
        parent.end().await;
    });
}

#[test]
fn killing_reaches_every_process_even_in_groups_beneath() {
    run(async {
        let Some(parent) = Parent::new("kill") else {
            return;
        };
        let group = parent.create(&limits()).await;
        let inside = Inside::start("sleep 100 & sleep 100 & sleep 100");
        inside.enter(&group);
        let mut nested = Inside::start("sleep 100");
        let deeper: Vec<PathBuf> = group.dirs().iter().map(|d| d.join("a/b")).collect();
        for dir in &deeper {
            fs::create_dir_all(dir).unwrap();
            for (list, dir) in ["cpuset.cpus", "cpuset.mems"]
                .iter()
                .flat_map(|l| [(l, dir.parent().unwrap().to_owned()), (l, dir.clone())])
            {
                if dir.join(list).exists() && group.dirs().len() > 1 {
                    let value = fs::read_to_string(dir.parent().unwrap().join(list)).unwrap();
                    fs::write(dir.join(list), value.trim()).unwrap();
                }
            }
            fs::write(dir.join("cgroup.procs"), nested.0.id().to_string()).unwrap();
        }
        let mut first = inside.0;
        std::io::Write::write_all(first.stdin.as_mut().unwrap(), b"\n").unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while group.process_count() < 4 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        group.kill_all().unwrap();
        assert!(!first.wait().unwrap().success());
        assert!(!nested.0.wait().unwrap().success());
        group.remove().await.unwrap();
        group.kill_all().unwrap();
        assert!(!group.exists());
        parent.end().await;
    });
}

#[test]
fn a_frozen_group_stands_still_until_thawed() {
    run(async {
        let Some(parent) = Parent::new("freeze") else {
            return;
        };
        let group = parent.create(&limits()).await;
        let inside = Inside::start("while :; do :; done");
        inside.enter(&group);
        let mut child = inside.0;
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"\n").unwrap();
        group.freeze().await.unwrap();
        assert!(group.is_frozen());
        let before = group.cpu_stats().unwrap().usage_ns;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(group.cpu_stats().unwrap().usage_ns, before);
        group.thaw().unwrap();
        assert!(!group.is_frozen());
        group.kill_all().unwrap();
        child.wait().unwrap();
        group.remove().await.unwrap();
        parent.end().await;
    });
}

#[test]
fn devices_are_allowed_and_denied_and_replaced() {
    run(async {
        let Some(parent) = Parent::new("devices") else {
            return;
        };
        let group = parent.create(&limits()).await;
        // /dev/kmsg is 1:11: not among the usual devices.
        let script = "for d in null kmsg; do (: < /dev/$d) 2>/dev/null && echo $d; done";
        let try_open = || {
            let inside = Inside::start(script);
            for dir in group.dirs() {
                fs::write(dir.join("cgroup.procs"), inside.0.id().to_string()).unwrap();
            }
            inside.go().1
        };
        // One process stays for the scope's sake.
        let stays = Inside::start("read end");
        stays.enter(&group);
        assert_eq!(try_open(), "null\n");
        let mut rules = default_devices();
        rules.push(DeviceRule::new(
            true,
            DeviceKind::Char,
            Some(1),
            Some(11),
            "rw",
        ));
        let update = |rules: Vec<DeviceRule>| Resources {
            devices: Some(rules),
            ..Resources::default()
        };
        group.update(&update(rules)).await.unwrap();
        assert_eq!(try_open(), "null\nkmsg\n");
        group.update(&update(default_devices())).await.unwrap();
        assert_eq!(try_open(), "null\n");
        group
            .update(&update(vec![DeviceRule::allow_all()]))
            .await
            .unwrap();
        assert_eq!(try_open(), "null\nkmsg\n");
        let mut child = stays.0;
        child.kill().unwrap();
        child.wait().unwrap();
        group.remove().await.unwrap();
        parent.end().await;
    });
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    run(async {
        let Some(parent) = Parent::new("names") else {
            return;
        };
        for (bad_parent, name) in [
            ("/a/../b", "c"),
            (&*parent.name, "../c"),
            (&*parent.name, ""),
        ] {
            let created = parent
                .cgroups
                .create(bad_parent, name, &Resources::default())
                .await;
            assert!(matches!(created, Err(CreateError::Name(_))), "{created:?}");
            assert!(!parent.cgroups.open(bad_parent, name).exists());
        }
    });
}

#[test]
fn limits_outlive_a_daemon_reload_of_systemd() {
    run(async {
        let Some(parent) = Parent::new("reload") else {
            return;
        };
        if parent.cgroups.driver() != Driver::Systemd {
            println!("skipped: needs the systemd driver");
            return;
        }
        let group = parent.create(&limits()).await;
        let stays = Inside::start("read end");
        stays.enter(&group);
        let wanted = Resources {
            memory_limit: Some(80 << 20),
            memory_swap: Some(80 << 20),
            pids_limit: Some(50),
            ..limits()
        };
        group.update(&wanted).await.unwrap();
        let before = group.read_back();
        assert_eq!(before.memory_limit, Some(80 << 20));
        let reloaded = Command::new("systemctl").arg("daemon-reload").status();
        assert!(reloaded.unwrap().success());
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(group.read_back(), before);
        if parent.cgroups.version() != Version::V2 {
            let list = group.dirs().into_iter().map(|d| d.join("devices.list"));
            let list = list
                .filter_map(|f| fs::read_to_string(f).ok())
                .collect::<String>();
            assert!(
                list.contains("c 1:3 rwm") && !list.contains("a *:*"),
                "{list}"
            );
        }
        group.kill_all().unwrap();
        let mut child = stays.0;
        child.wait().unwrap();
        group.remove().await.unwrap();
        parent.end().await;
    });
}

/// Not timed; prints what the hot paths cost here.
#[test]
fn costs() {
    run(async {
        let Some(parent) = Parent::new("costs") else {
            return;
        };
        let keep = parent.create(&limits()).await;
        let (mut creates, mut removes, mut stats) = (Vec::new(), Vec::new(), Vec::new());
        let (mut reads, mut reader) = (Vec::new(), StatsReader::new(&keep));
        for i in 0..50 {
            let started = Instant::now();
            let group = parent
                .cgroups
                .create(&parent.name, &format!("n{i}"), &limits())
                .await
                .unwrap();
            creates.push(started.elapsed());
            let started = Instant::now();
            assert!(group.stats().is_some());
            stats.push(started.elapsed());
            let started = Instant::now();
            assert!(reader.read().is_some());
            reads.push(started.elapsed());
            let started = Instant::now();
            group.remove().await.unwrap();
            removes.push(started.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for (what, times) in [
            ("create", &mut creates),
            ("stats", &mut stats),
            ("read again", &mut reads),
            ("remove", &mut removes),
        ] {
            times.sort();
            println!("{what}: median {:?}, p90 {:?}", times[25], times[45]);
        }
        keep.remove().await.unwrap();
        assert_eq!(reader.read(), None);
        parent.end().await;
    });
}
