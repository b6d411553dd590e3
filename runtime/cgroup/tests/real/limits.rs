//! Limits: written, read back, changed, refused.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use joey_cgroup::{
    CreateError, DeviceKind, DeviceRule, Driver, Group, Resources, Version, default_devices,
};

use crate::support::{Inside, Parent, limits, run};

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
