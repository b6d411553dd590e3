//! Running one CNI plugin.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

const MAX_OUTPUT: u64 = 1024 * 1024;
const MAX_MESSAGE: usize = 4096;

/// Why a plugin did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// It is in no folder.
    #[error("CNI plugin {plugin} is in none of the folders {}", show(folders))]
    NotFound {
        /// Its name.
        plugin: String,
        /// Where it was looked for.
        folders: Vec<PathBuf>,
    },
    /// It can't be run.
    #[error("run CNI plugin {plugin}")]
    Run {
        /// Its name.
        plugin: String,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// Its input can't be written as JSON.
    #[error("encode the input of CNI plugin {plugin}")]
    Encode {
        /// Its name.
        plugin: String,
        /// The reason.
        #[source]
        source: serde_json::Error,
    },
    /// It took too long and was killed.
    #[error("CNI plugin {plugin} did not end its {command} within {seconds} s")]
    Timeout {
        /// Its name.
        plugin: String,
        /// What it was asked for.
        command: &'static str,
        /// How long it had.
        seconds: u64,
    },
    /// It does not know the version of its configuration.
    #[error("CNI plugin {plugin} does not know version {version}")]
    Version {
        /// Its name.
        plugin: String,
        /// The version of the configuration.
        version: String,
    },
    /// It said too much.
    #[error("CNI plugin {plugin} answered more than {MAX_OUTPUT} bytes")]
    TooLarge {
        /// Its name.
        plugin: String,
    },
    /// It refused.
    #[error("CNI plugin {plugin} failed its {command}: {message}{} (code {code})", if details.is_empty() { String::new() } else { format!("; {details}") })]
    Refused {
        /// Its name.
        plugin: String,
        /// What it was asked for.
        command: &'static str,
        /// Code of the CNI specification, or the plugin's own.
        code: u64,
        /// Its explanation.
        message: String,
        /// More of it.
        details: String,
    },
    /// It failed without an explanation in the form of the specification.
    #[error("CNI plugin {plugin} failed its {command} with {status}: {stderr}")]
    Failed {
        /// Its name.
        plugin: String,
        /// What it was asked for.
        command: &'static str,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it wrote to its standard error.
        stderr: String,
    },
}

fn show(folders: &[PathBuf]) -> String {
    let shown: Vec<_> = folders
        .iter()
        .map(|folder| folder.display().to_string())
        .collect();
    shown.join(", ")
}

/// What plugins are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Add,
    Del,
    Status,
    Gc,
    Version,
}

impl Verb {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Status => "STATUS",
            Self::Gc => "GC",
            Self::Version => "VERSION",
        }
    }
}

/// The container a call is about; empty for calls about none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subject {
    pub(crate) container_id: String,
    /// Empty when it is gone.
    pub(crate) netns: PathBuf,
    pub(crate) interface: String,
    pub(crate) args: String,
}

/// Where plugins are and how long they may run.
#[derive(Debug, Clone)]
pub(crate) struct Executor {
    pub(crate) folders: Vec<PathBuf>,
    pub(crate) timeout: Duration,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

struct Output {
    status: std::process::ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Executor {
    pub(crate) fn find(&self, plugin: &str) -> Result<PathBuf, PluginError> {
        let runnable = |path: &PathBuf| {
            let found = std::fs::metadata(path);
            found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        };
        let mut paths = self.folders.iter().map(|folder| folder.join(plugin));
        paths.find(runnable).ok_or_else(|| PluginError::NotFound {
            plugin: plugin.to_owned(),
            folders: self.folders.clone(),
        })
    }

    /// Runs a plugin; what it wrote to its standard output. Dropping the call kills the plugin.
    pub(crate) async fn run(
        &self,
        verb: Verb,
        plugin: &str,
        input: &Value,
        subject: &Subject,
    ) -> Result<Vec<u8>, PluginError> {
        let path = self.find(plugin)?;
        let input = serde_json::to_vec(input).map_err(|source| PluginError::Encode {
            plugin: plugin.to_owned(),
            source,
        })?;
        let command = self.command(&path, verb, subject);
        let name = plugin.to_owned();
        let work = talk(command, input, &name);
        let output = match tokio::time::timeout(self.timeout, work).await {
            Ok(output) => output?,
            Err(_) => {
                let seconds = self.timeout.as_secs();
                return Err(PluginError::Timeout {
                    plugin: name,
                    command: verb.as_str(),
                    seconds,
                });
            }
        };
        if !output.stderr.is_empty() {
            let said = shorten(&output.stderr);
            tracing::debug!(plugin, command = verb.as_str(), said, "CNI plugin");
        }
        if output.status.success() {
            return Ok(output.stdout);
        }
        let command = verb.as_str();
        match serde_json::from_slice::<Refusal>(&output.stdout) {
            Ok(refusal) if refusal.code != 0 || !refusal.msg.is_empty() => {
                let (message, details) = (
                    shorten(refusal.msg.as_bytes()),
                    shorten(refusal.details.as_bytes()),
                );
                Err(PluginError::Refused {
                    plugin: name,
                    command,
                    code: refusal.code,
                    message,
                    details,
                })
            }
            _ => Err(PluginError::Failed {
                plugin: name,
                command,
                status: output.status,
                stderr: shorten(&output.stderr),
            }),
        }
    }

    fn command(&self, path: &Path, verb: Verb, subject: &Subject) -> Command {
        let mut command = Command::new(path);
        let mut folders = OsString::new();
        for folder in &self.folders {
            if !folders.is_empty() {
                folders.push(":");
            }
            folders.push(folder);
        }
        command
            .env("CNI_COMMAND", verb.as_str())
            .env("CNI_PATH", folders)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if matches!(verb, Verb::Add | Verb::Del) {
            command
                .env("CNI_CONTAINERID", &subject.container_id)
                .env("CNI_NETNS", &subject.netns)
                .env("CNI_IFNAME", &subject.interface)
                .env("CNI_ARGS", &subject.args);
        }
        command
    }
}

/// A plugin's own plugins end with it.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0
            && let Err(error) = kill_process_group(pid, Signal::KILL)
        {
            tracing::debug!(%error, "CNI plugin can't be killed");
        }
    }
}

async fn talk(mut command: Command, input: Vec<u8>, plugin: &str) -> Result<Output, PluginError> {
    let failed = |source| PluginError::Run {
        plugin: plugin.to_owned(),
        source,
    };
    joey_failpoint::hit("cni.exec").map_err(failed)?;
    let mut child = command.spawn().map_err(failed)?;
    let pid = child
        .id()
        .and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
    let mut group = Group(pid);
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // A plugin that does not read its input says by its exit code whether that is wrong.
            if let Err(error) = stdin.write_all(&input).await {
                tracing::debug!(plugin, %error, "CNI plugin does not read its input");
            }
        }
    };
    let (_, stdout, stderr) = tokio::join!(write, read(stdout), read(stderr));
    joey_failpoint::hit("cni.answered").map_err(failed)?;
    let (stdout, stderr) = (stdout.map_err(failed)?, stderr.map_err(failed)?);
    if stdout.len() as u64 > MAX_OUTPUT {
        return Err(PluginError::TooLarge {
            plugin: plugin.to_owned(),
        });
    }
    let status = child.wait().await.map_err(failed)?;
    group.0 = None;
    Ok(Output {
        status,
        stdout,
        stderr,
    })
}

/// Reads one byte more than allowed at most: the pipe is closed then.
async fn read(from: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        from.take(MAX_OUTPUT + 1).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

fn shorten(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_MESSAGE)]);
    text.trim().to_owned()
}
