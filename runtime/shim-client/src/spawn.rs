//! Starts a shim.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;

use tokio::net::UnixStream;
use tokio::process::Command;

use crate::binary::ShimBinary;
use crate::error::CallError;
use crate::shim::Shim;

impl Shim {
    /// Starts the shim of a pod. Its first connection is its standard input: the answer on it says
    /// that the shim is ready, and no socket has to be polled for. It goes on when the daemon ends.
    ///
    /// # Errors
    /// The program can't be run or does not answer.
    pub async fn spawn(
        binary: &ShimBinary,
        pod_id: &str,
        run_folder: &Path,
    ) -> Result<Self, CallError> {
        let failed = |step| move |source| CallError::Spawn { step, source };
        let (ours, theirs) = UnixStream::pair().map_err(failed("make the shim's socket"))?;
        let theirs = theirs
            .into_std()
            .map_err(failed("make the shim's socket"))?;
        let mut child = Command::new(binary.path())
            .arg0("joey-shim")
            .arg(pod_id)
            .arg(run_folder)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed("run the shim"))?;
        let greeted = Self::greet(ours).await;
        if greeted.is_err() {
            drop(child.start_kill());
        }
        let pod_id = pod_id.to_owned();
        tokio::spawn(async move {
            match child.wait().await {
                Ok(status) => tracing::debug!(pod = pod_id, %status, "a shim ended"),
                Err(error) => tracing::warn!(pod = pod_id, %error, "a shim can't be waited for"),
            }
        });
        greeted
    }
}
