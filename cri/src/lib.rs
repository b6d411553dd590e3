//! The Container Runtime Interface: RuntimeService and ImageService over the runtime and the image
//! store.
//!
//! One file per RPC: it checks and maps the request ([`request`]), calls, and maps the answer back
//! ([`reply`]). There is no state here; `status.rs` is the one place that turns errors into gRPC
//! codes.
#![forbid(unsafe_code)]

mod attach;
mod checkpoint_container;
mod chunks;
mod container_stats;
mod container_status;
mod create_container;
mod exec;
mod exec_sync;
mod filter;
#[cfg(test)]
mod fixtures;
#[cfg(fuzzing)]
pub mod fuzzing;
mod get_container_events;
mod image_fs_info;
mod image_service;
mod image_status;
mod list_container_stats;
mod list_containers;
mod list_images;
mod list_metric_descriptors;
mod list_pod_sandbox;
mod list_pod_sandbox_metrics;
mod list_pod_sandbox_stats;
mod metrics;
mod operation;
mod pod_sandbox_stats;
mod pod_sandbox_status;
mod port_forward;
mod pull_image;
mod remove_container;
mod remove_image;
mod remove_pod_sandbox;
mod reopen_container_log;
mod reply;
mod request;
mod run_pod_sandbox;
mod runtime_config;
mod runtime_service;
mod runtime_status;
mod service;
mod spread;
mod start_container;
mod status;
mod stop_container;
mod stop_pod_sandbox;
mod streams;
mod update_container_resources;
mod update_pod_sandbox_resources;
mod update_runtime_config;
mod version;

pub use service::{Options, Service};
pub use streams::RuntimeStreams;
