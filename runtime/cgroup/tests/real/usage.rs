//! What groups use, and what they cost.

use std::time::{Duration, Instant};

use joey_cgroup::{CpuStats, StatsReader};

use crate::support::{Inside, Parent, limits, run};

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
        // User and system time are counted by the tick.
        let counted = |cpu: &CpuStats| cpu.usage_ns >= 1_000_000 && cpu.user_ns + cpu.system_ns > 0;
        while !counted(&group.cpu_stats().unwrap()) && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let stats = group.stats().unwrap();
        assert!(stats.timestamp_ns > 0);
        let cpu = stats.cpu.unwrap();
        assert!(counted(&cpu), "{cpu:?}");
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
