//! What the integration tests share: a real registry, a real daemon, a CRI client and a leak check.
//!
//! The tests run as root in a network namespace of their own (`scripts/test` makes it), against the
//! binaries in `JOEY_BIN`, with Debian's `docker-registry`. A test that can't have these fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

mod bystander;
mod client;
mod daemon;
mod disk;
mod image;
mod joey;
mod leaks;
pub mod limits;
mod pods;
mod registry;
mod stand;
mod terminal;

pub use bystander::Bystander;
pub use client::{Client, container_spec, pod_config};
pub use daemon::{Daemon, Setup, binary};
pub use disk::{Full, SmallDisk};
pub use image::{ImageBuilder, busybox};
pub use leaks::{Footprint, shims, stored};
pub use pods::{bind, namespaces, pod_security, security};
pub use registry::{CREDENTIALS, Registry};
pub use stand::Stand;
pub use terminal::{Terminal, piped, read_until, signal};

use std::time::{Duration, Instant};

/// Polls until `condition` holds; panics with `what` after 10 s.
pub async fn eventually<F, Fut>(what: &str, mut condition: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition().await {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
