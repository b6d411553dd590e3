//! Killed anywhere: at every point that an operation passes the daemon, the worker or the shim is
//! killed, or the step fails; nothing may be lost, run twice or left, and the retry works.
//!
//! Needs a joeyd and a joey-shim with failpoints in `JOEY_FAILPOINT_BIN`. A part of the points is
//! tried; all of them with `JOEY_FAILPOINT_ALL=1`. `JOEY_FAILPOINT_REPORT` names a file to which a
//! line per operation is added.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cni;
mod full;
mod matrix;
mod node;
mod operation;
mod recovery;

use operation::Operation;

#[tokio::test]
async fn run_pod_sandbox() {
    matrix::run(Operation::RunPodSandbox).await;
}

#[tokio::test]
async fn create_container() {
    matrix::run(Operation::CreateContainer).await;
}

#[tokio::test]
async fn start_container() {
    matrix::run(Operation::StartContainer).await;
}

#[tokio::test]
async fn stop_container() {
    matrix::run(Operation::StopContainer).await;
}

#[tokio::test]
async fn remove_container() {
    matrix::run(Operation::RemoveContainer).await;
}

#[tokio::test]
async fn stop_pod_sandbox() {
    matrix::run(Operation::StopPodSandbox).await;
}

#[tokio::test]
async fn remove_pod_sandbox() {
    matrix::run(Operation::RemovePodSandbox).await;
}

#[tokio::test]
async fn pull_image() {
    matrix::run(Operation::PullImage).await;
}

#[tokio::test]
async fn remove_image() {
    matrix::run(Operation::RemoveImage).await;
}

#[tokio::test]
async fn exec_sync() {
    matrix::run(Operation::ExecSync).await;
}

#[tokio::test]
async fn update_container_resources() {
    matrix::run(Operation::UpdateContainerResources).await;
}
