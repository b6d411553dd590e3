//! A process that a shim runs in a container.

use std::sync::Arc;

use joey_proto::shim::Kill;
use tokio::sync::watch;

use crate::connection::Connection;
use crate::error::CallError;
use crate::shim;

const SIGKILL: u32 = 9;

/// A process that runs in a container.
#[derive(Debug)]
pub struct ExecHandle {
    pub(crate) connection: Arc<Connection>,
    pub(crate) container_id: String,
    pub(crate) exec_id: u64,
    pub(crate) exited: watch::Receiver<Option<i32>>,
}

impl ExecHandle {
    /// The exit code, 128 + the signal where one ended the process.
    ///
    /// # Errors
    /// [`CallError::Gone`].
    pub async fn wait(&mut self) -> Result<i32, CallError> {
        let code = self
            .exited
            .wait_for(Option::is_some)
            .await
            .map_err(|_| CallError::Gone)?;
        (*code).ok_or(CallError::Gone)
    }

    /// Kills the process and its group.
    ///
    /// # Errors
    /// The shim is gone or refuses.
    pub async fn kill(&self) -> Result<(), CallError> {
        let request = Kill {
            container_id: self.container_id.clone(),
            signal: SIGKILL,
            exec_id: self.exec_id,
            ..Kill::default()
        };
        shim::kill(&self.connection, request).await
    }
}

impl Drop for ExecHandle {
    fn drop(&mut self) {
        self.connection.forget_exec(self.exec_id);
    }
}
