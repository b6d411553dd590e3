//! systemd's manager interface over D-Bus: slices, scopes, properties.

use std::io;
use std::time::Duration;

use futures::StreamExt;
use serde::Serialize;
use tokio::sync::Mutex;
use zbus::message::Type;
use zbus::zvariant::{DynamicType, OwnedObjectPath, Value};
use zbus::{Connection, MatchRule, Message, MessageStream};

use crate::units::Property;

const DESTINATION: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const INTERFACE: &str = "org.freedesktop.systemd1.Manager";
/// systemd's own socket, where no D-Bus daemon runs. systemctl uses it as root.
const PRIVATE_SOCKET: &str = "unix:path=/run/systemd/private";
/// A job that takes longer is stuck behind another; the kubelet gives RunPodSandbox 4 minutes.
const JOB_TIMEOUT: Duration = Duration::from_secs(30);
const CALL_TIMEOUT: Duration = Duration::from_secs(25);

/// systemd could not be asked, or refused.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// Neither over the system bus nor over its own socket.
    #[error("connect to systemd")]
    Connect(#[source] Box<zbus::Error>),
    /// A call failed.
    #[error("call {method} of systemd")]
    Call {
        /// Of the manager interface.
        method: &'static str,
        /// What systemd or the bus said.
        #[source]
        source: Box<zbus::Error>,
    },
    /// The job ended otherwise than "done".
    #[error("systemd's job ended with {result:?}")]
    Job {
        /// `failed`, `canceled`, `timeout`, `dependency`, `skipped`.
        result: String,
    },
    /// The job did not end.
    #[error("systemd's job did not end within 30 s")]
    TimedOut,
}

#[derive(Debug, Clone)]
struct Manager {
    connection: Connection,
    /// systemd's own socket has no names.
    on_bus: bool,
}

/// One connection for all, driven by the tokio runtime of its first use; None before the first use and after it broke.
static SHARED: Mutex<Option<Manager>> = Mutex::const_new(None);

/// Makes `unit`, a delegated scope in `slice` holding process `pid`.
pub(crate) async fn start_scope(
    unit: &str,
    slice: &str,
    pid: u32,
    limits: Vec<Property>,
) -> Result<(), SystemdError> {
    let mut properties: Vec<Property> = vec![
        property("Description", format!("container {unit}")),
        property("Slice", slice.to_owned()),
        property("PIDs", vec![pid]),
        property("Delegate", true),
        property("CollectMode", "inactive-or-failed"),
    ];
    properties.extend(common());
    properties.extend(limits);
    start(unit, properties).await
}

/// Makes a slice, or sets the limits of one that is there.
pub(crate) async fn start_slice(unit: &str, limits: Vec<Property>) -> Result<(), SystemdError> {
    let mut properties = vec![property("Description", format!("pod {unit}"))];
    properties.extend(common());
    properties.extend(limits.clone());
    match start(unit, properties).await {
        Err(error) if error.is("org.freedesktop.systemd1.UnitExists") => {
            set_properties(unit, limits).await
        }
        result => result,
    }
}

/// Changes properties of a running unit until it ends.
pub(crate) async fn set_properties(
    unit: &str,
    properties: Vec<Property>,
) -> Result<(), SystemdError> {
    if properties.is_empty() {
        return Ok(());
    }
    let runtime_only = true;
    call("SetUnitProperties", &(unit, runtime_only, properties)).await?;
    Ok(())
}

/// Stops a unit and forgets its failure. One that is gone is fine; its folders are removed by the
/// caller in any case, so errors are only worth a log line.
pub(crate) async fn stop(unit: &str) {
    let stopped = run_job("StopUnit", unit, &(unit, "replace")).await;
    if let Err(error) = stopped
        && !error.is("org.freedesktop.systemd1.NoSuchUnit")
    {
        tracing::warn!(unit, %error, "unit not stopped");
    }
    if let Err(error) = call("ResetFailedUnit", &(unit,)).await {
        tracing::trace!(unit, %error, "no failure to forget");
    }
}

fn property(name: &str, value: impl Into<Value<'static>>) -> Property {
    (name.to_owned(), value.into())
}

/// Accounting switches the controllers on; without default dependencies the unit is stopped with its
/// pod, not by systemd's shutdown order.
fn common() -> Vec<Property> {
    [
        ("DefaultDependencies", false),
        ("CPUAccounting", true),
        ("MemoryAccounting", true),
        ("TasksAccounting", true),
        ("IOAccounting", true),
    ]
    .map(|(name, value)| property(name, value))
    .into()
}

async fn start(unit: &str, properties: Vec<Property>) -> Result<(), SystemdError> {
    let auxiliary: Vec<(String, Vec<Property>)> = Vec::new();
    let body = (unit, "replace", properties, auxiliary);
    match run_job("StartTransientUnit", unit, &body).await {
        Err(error)
            if unit.ends_with(".scope") && error.is("org.freedesktop.systemd1.UnitExists") =>
        {
            // A failed unit of an earlier life keeps its name until it is forgotten.
            call("ResetFailedUnit", &(unit,)).await?;
            run_job("StartTransientUnit", unit, &body).await
        }
        result => result,
    }
}

/// Calls a method that queues a job and waits for the job's end.
async fn run_job<B>(method: &'static str, unit: &str, body: &B) -> Result<(), SystemdError>
where
    B: Serialize + DynamicType + Sync,
{
    let failed = |source: zbus::Error| SystemdError::Call {
        method,
        source: Box::new(source),
    };
    let manager = manager().await?;
    // Listening begins before the call: the job may end before its reply is read.
    let rule = job_removed(unit).map_err(failed)?;
    let mut ends = MessageStream::for_match_rule(rule, &manager.connection, Some(16))
        .await
        .map_err(failed)?;
    let reply = call(method, body).await?;
    let job: OwnedObjectPath = reply.body().deserialize().map_err(failed)?;
    let wait = async {
        while let Some(message) = ends.next().await {
            let message = message.map_err(failed)?;
            let body = message.body();
            let (_, path, _, result): (u32, OwnedObjectPath, String, String) =
                body.deserialize().map_err(failed)?;
            if path == job {
                return match result.as_str() {
                    "done" => Ok(()),
                    _ => Err(SystemdError::Job { result }),
                };
            }
        }
        Err(failed(zbus::Error::Failure(
            "the connection ended".to_owned(),
        )))
    };
    tokio::time::timeout(JOB_TIMEOUT, wait)
        .await
        .map_err(|_| SystemdError::TimedOut)?
}

fn job_removed(unit: &str) -> zbus::Result<zbus::OwnedMatchRule> {
    let rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .path(PATH)?
        .interface(INTERFACE)?
        .member("JobRemoved")?
        .arg(2, unit)?
        .build();
    Ok(rule.to_owned().into())
}

/// One call; a broken connection (systemd or the bus was restarted) is made anew, once.
async fn call<B>(method: &'static str, body: &B) -> Result<Message, SystemdError>
where
    B: Serialize + DynamicType + Sync,
{
    joey_failpoint::hit("systemd.call").map_err(|error| SystemdError::Call {
        method,
        source: Box::new(error.into()),
    })?;
    let manager = manager().await?;
    let result = manager.call(method, body).await;
    match result {
        Err(zbus::Error::InputOutput(e)) if e.kind() != io::ErrorKind::TimedOut => {
            *SHARED.lock().await = None;
            self::manager().await?.call(method, body).await
        }
        result => result,
    }
    .map_err(|source| SystemdError::Call {
        method,
        source: Box::new(source),
    })
}

impl Manager {
    async fn call<B>(&self, method: &'static str, body: &B) -> zbus::Result<Message>
    where
        B: Serialize + DynamicType + Sync,
    {
        let destination = self.on_bus.then_some(DESTINATION);
        self.connection
            .call_method(destination, PATH, Some(INTERFACE), method, body)
            .await
    }
}

async fn manager() -> Result<Manager, SystemdError> {
    let mut shared = SHARED.lock().await;
    if let Some(manager) = shared.as_ref().filter(|m| !m.connection.is_closed()) {
        return Ok(manager.clone());
    }
    let manager = connect()
        .await
        .map_err(|e| SystemdError::Connect(Box::new(e)))?;
    *shared = Some(manager.clone());
    Ok(manager)
}

async fn connect() -> zbus::Result<Manager> {
    let builder = zbus::connection::Builder::system()?.method_timeout(CALL_TIMEOUT);
    let manager = match builder.build().await {
        Ok(connection) => Manager {
            connection,
            on_bus: true,
        },
        Err(error) => {
            let private = zbus::connection::Builder::address(PRIVATE_SOCKET)?
                .p2p()
                .method_timeout(CALL_TIMEOUT);
            Manager {
                connection: private.build().await.map_err(|_| error)?,
                on_bus: false,
            }
        }
    };
    manager.call("Subscribe", &()).await?;
    Ok(manager)
}

impl SystemdError {
    /// Whether systemd answered with the error of this name.
    fn is(&self, name: &str) -> bool {
        let Self::Call { source, .. } = self else {
            return false;
        };
        matches!(source.as_ref(), zbus::Error::MethodError(found, _, _) if found.as_str() == name)
    }
}
