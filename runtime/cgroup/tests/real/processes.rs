//! What happens to the processes of a group.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use joey_cgroup::{Resources, Version};

use crate::support::{Inside, Parent, limits, run};

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
