//! Wire types: the CRI, Joey's own API and the shim protocol. Generated code, nothing else.
#![allow(
    missing_docs,
    missing_debug_implementations,
    clippy::all,
    clippy::pedantic
)]

/// Kubernetes CRI v1, from `k8s.io/cri-api` v0.36.3.
#[cfg(feature = "cri")]
pub mod cri {
    tonic::include_proto!("runtime.v1");
}

/// Joey's own API, served to the `joey` command line.
#[cfg(feature = "api")]
pub mod api {
    tonic::include_proto!("joey.v1");
}

/// The messages between the daemon and the shim of a pod.
#[cfg(feature = "shim")]
pub mod shim {
    include!(concat!(env!("OUT_DIR"), "/joey.shim.v1.rs"));
}
