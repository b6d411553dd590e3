use joey_cgroup::{DeviceKind, DeviceRule, Throttle, ThrottleKind};
use proptest::prelude::*;

use super::*;

fn overlay(name: &str, resources: Resources) -> Overlay {
    Overlay {
        name: name.to_owned(),
        reason: String::new(),
        at: 0,
        resources,
    }
}

prop_compose! {
    fn some_resources()(
        cpu_quota in prop::option::of(prop::sample::select(vec![-1i64, 0, 5_000, 90_000])),
        cpu_shares in prop::option::of(0u64..4),
        cpuset_cpus in prop::option::of(prop::sample::select(vec![String::new(), "0".to_owned(), "0-1".to_owned()])),
        memory_limit in prop::option::of(prop::sample::select(vec![-1i64, 0, 1 << 20, 1 << 30])),
        memory_swap in prop::option::of(prop::sample::select(vec![-1i64, 0, 1 << 20, 1 << 31])),
        pids_limit in prop::option::of(-1i64..3),
        pages in prop::collection::btree_map(prop::sample::select(vec!["2MB", "1GB"]), 0u64..3, 0..3),
        throttles in prop::collection::btree_map(0u32..3, 0u64..3, 0..3),
    ) -> Resources {
        Resources {
            cpu_quota,
            cpu_shares,
            cpuset_cpus,
            memory_limit,
            memory_swap,
            pids_limit,
            hugepage_limits: pages.into_iter().map(|(size, n)| (size.to_owned(), n)).collect(),
            blkio_throttles: throttles
                .into_iter()
                .map(|(minor, rate)| Throttle { major: 8, minor, kind: ThrottleKind::ReadBps, rate })
                .collect(),
            ..Resources::default()
        }
    }
}

proptest! {
    #[test]
    fn an_empty_overlay_changes_nothing(base in some_resources()) {
        prop_assert_eq!(
            compose(&base, &[overlay("a", Resources::default())]),
            over(&base, &Resources::default())
        );
        let again = over(&base, &Resources::default());
        prop_assert_eq!(over(&again, &Resources::default()), again);
    }

    #[test]
    fn laying_the_same_over_twice_is_laying_it_once(base in some_resources(), top in some_resources()) {
        let once = compose(&base, &[overlay("a", top.clone())]);
        let twice = compose(&base, &[overlay("a", top.clone()), overlay("b", top)]);
        prop_assert_eq!(
            (once.cpu_quota, once.memory_limit, &once.hugepage_limits, &once.blkio_throttles),
            (twice.cpu_quota, twice.memory_limit, &twice.hugepage_limits, &twice.blkio_throttles)
        );
    }

    #[test]
    fn the_topmost_that_gives_a_value_decides(layers in prop::collection::vec(some_resources(), 1..5)) {
        let overlays: Vec<Overlay> = layers[1..]
            .iter()
            .enumerate()
            .map(|(at, resources)| overlay(&at.to_string(), resources.clone()))
            .collect();
        let composed = compose(&layers[0], &overlays);
        let last = |value: &dyn Fn(&Resources) -> Option<i64>| {
            layers.iter().rev().find_map(|layer| value(layer).filter(|n| *n != 0))
        };
        prop_assert_eq!(composed.cpu_quota.filter(|n| *n != 0), last(&|r| r.cpu_quota));
        prop_assert_eq!(composed.memory_limit.filter(|n| *n != 0), last(&|r| r.memory_limit));
        prop_assert_eq!(composed.pids_limit.filter(|n| *n != 0), last(&|r| r.pids_limit));
        for (size, limit) in &composed.hugepage_limits {
            let topmost = layers.iter().rev().find_map(|layer| {
                layer.hugepage_limits.iter().find(|(other, _)| other == size)
            });
            prop_assert_eq!(Some(limit), topmost.map(|(_, limit)| limit));
        }
    }

    #[test]
    fn updates_one_by_one_are_the_same_as_their_layers(
        base in some_resources(),
        updates in prop::collection::vec(some_resources(), 0..5),
    ) {
        let mut overlays = Vec::new();
        let mut beneath = base.clone();
        for update in &updates {
            overlays = changed(&overlays, overlay(LIVE_UPDATE, update.clone()));
            beneath = over(&beneath, update);
        }
        prop_assert!(overlays.len() <= 1);
        let composed = compose(&base, &overlays);
        prop_assert_eq!(composed.cpu_quota, beneath.cpu_quota);
        prop_assert_eq!(composed.memory_limit, beneath.memory_limit);
        prop_assert_eq!(composed.cpuset_cpus, beneath.cpuset_cpus);
        prop_assert_eq!(composed.blkio_throttles.len(), beneath.blkio_throttles.len());
    }
}

#[test]
fn zero_leaves_and_minus_one_replaces() {
    let old = Resources {
        cpu_quota: Some(5000),
        cpu_shares: Some(100),
        ..Resources::default()
    };
    let new = Resources {
        cpu_quota: Some(-1),
        cpu_shares: Some(0),
        pids_limit: Some(7),
        ..Resources::default()
    };
    let result = over(&old, &new);
    assert_eq!(result.cpu_quota, Some(-1));
    assert_eq!(result.cpu_shares, Some(100));
    assert_eq!(result.pids_limit, Some(7));
}

#[test]
fn swap_follows_the_limit_it_equalled() {
    let limits = |memory_limit, memory_swap| Resources {
        memory_limit,
        memory_swap,
        ..Resources::default()
    };
    let result = over(&limits(Some(10), Some(10)), &limits(Some(20), None));
    assert_eq!((result.memory_limit, result.memory_swap), (Some(20), None));
    let result = over(&limits(Some(10), Some(30)), &limits(Some(20), None));
    assert_eq!(result.memory_swap, Some(30));
}

#[test]
fn the_last_rule_about_a_device_decides_also_when_it_was_given_before() {
    let rule = |allow| DeviceRule::new(allow, DeviceKind::Char, Some(10), Some(229), "rwm");
    let given = |allow| Resources {
        devices: Some(vec![rule(allow)]),
        ..Resources::default()
    };
    for first in [true, false] {
        let mut overlays = Vec::new();
        for allow in [first, !first, first] {
            overlays = changed(&overlays, overlay(LIVE_UPDATE, given(allow)));
            let once_more = compose(&given(first), &overlays).devices.unwrap();
            assert_eq!(once_more.last(), Some(&rule(allow)));
            assert!(once_more.len() <= 2, "{once_more:?}");
        }
    }
}
