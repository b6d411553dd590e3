//! What limits are made of: those asked for at the creation, and named overlays on top. Pure logic.

use joey_cgroup::Resources;
use serde::{Deserialize, Serialize};

/// The overlay of what was changed since the creation.
pub(crate) const LIVE_UPDATE: &str = "update";

/// Limits on top of those asked for at the creation, with the reason for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// What it is; there is one of each name.
    pub name: String,
    /// Who or what wants it.
    pub reason: String,
    /// ns since the epoch: when it was last changed.
    pub at: i64,
    /// What it sets; nothing else of what is beneath changes.
    pub resources: Resources,
}

/// The limits that come of `base` and of the overlays, each over those before it.
pub(crate) fn compose(base: &Resources, overlays: &[Overlay]) -> Resources {
    overlays.iter().fold(base.clone(), |beneath, overlay| {
        over(&beneath, &overlay.resources)
    })
}

/// The overlays with `change` laid over the one of its name, which is made where there is none.
pub(crate) fn changed(overlays: &[Overlay], change: Overlay) -> Vec<Overlay> {
    let mut all = overlays.to_vec();
    match all.iter_mut().find(|overlay| overlay.name == change.name) {
        Some(overlay) => {
            *overlay = Overlay {
                resources: over(&overlay.resources, &change.resources),
                ..change
            }
        }
        None => all.push(change),
    }
    all
}

/// `above` where it gives a value, else `beneath`. CRI's zero is "not given".
fn over(beneath: &Resources, above: &Resources) -> Resources {
    fn pick<T: Clone + Default + PartialEq>(beneath: &Option<T>, above: &Option<T>) -> Option<T> {
        let given = above.as_ref().filter(|value| **value != T::default());
        given.or(beneath.as_ref()).cloned()
    }
    fn keyed<T: Clone, K: PartialEq>(beneath: &[T], above: &[T], key: impl Fn(&T) -> K) -> Vec<T> {
        let replaced = |item: &&T| above.iter().all(|other| key(other) != key(item));
        beneath
            .iter()
            .filter(replaced)
            .chain(above)
            .cloned()
            .collect()
    }
    let limit = above.memory_limit.filter(|limit| *limit != 0);
    let memory_swap = match (pick(&None, &above.memory_swap), limit) {
        (Some(swap), _) => Some(swap),
        // Memory and swap together were the old limit; they follow it.
        (None, Some(_)) if beneath.memory_swap == beneath.memory_limit => None,
        (None, _) => beneath.memory_swap,
    };
    let mut unified = beneath.unified.clone();
    unified.extend(above.unified.clone());
    Resources {
        cpu_period: pick(&beneath.cpu_period, &above.cpu_period),
        cpu_quota: pick(&beneath.cpu_quota, &above.cpu_quota),
        cpu_shares: pick(&beneath.cpu_shares, &above.cpu_shares),
        cpu_burst: above.cpu_burst.or(beneath.cpu_burst),
        cpu_idle: above.cpu_idle.or(beneath.cpu_idle),
        cpuset_cpus: pick(&beneath.cpuset_cpus, &above.cpuset_cpus),
        cpuset_mems: pick(&beneath.cpuset_mems, &above.cpuset_mems),
        memory_limit: pick(&beneath.memory_limit, &above.memory_limit),
        memory_swap,
        memory_reservation: pick(&beneath.memory_reservation, &above.memory_reservation),
        no_swap: above.no_swap.or(beneath.no_swap),
        swappiness: above.swappiness.or(beneath.swappiness),
        pids_limit: pick(&beneath.pids_limit, &above.pids_limit),
        hugepage_limits: keyed(&beneath.hugepage_limits, &above.hugepage_limits, |limit| {
            limit.0.clone()
        }),
        unified,
        blkio_weight: above.blkio_weight.or(beneath.blkio_weight),
        blkio_weight_devices: keyed(
            &beneath.blkio_weight_devices,
            &above.blkio_weight_devices,
            |device| (device.major, device.minor),
        ),
        blkio_throttles: keyed(
            &beneath.blkio_throttles,
            &above.blkio_throttles,
            |throttle| (throttle.major, throttle.minor, throttle.kind),
        ),
        // Rules are added to those of the devices that the container was made with. The last one
        // about a device decides, so one that is given again moves to the end.
        devices: match (&beneath.devices, &above.devices) {
            (Some(beneath), Some(above)) => {
                let others = beneath.iter().filter(|rule| !above.contains(rule));
                Some(others.chain(above).cloned().collect())
            }
            (beneath, above) => above.clone().or_else(|| beneath.clone()),
        },
    }
}

#[cfg(test)]
#[path = "overlay_tests.rs"]
mod tests;
