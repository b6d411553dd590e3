//! One pod: ADD, DEL, and GC of those that are gone.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::capabilities::{self, CapabilityError};
use super::conf::{ConfList, PluginConf};
use super::exec::{PluginError, Subject, Verb};
use super::record::{Record, RecordError};
use super::result::{self, ResultError};
use super::version::Version;
use super::{Cni, Inner};
use crate::network::chain;
use crate::types::{AttachRequest, Attachment, CniAttachment, Provider};

/// How long the start of a daemon waits for leftovers to be taken down.
const SWEEP_WAIT: Duration = Duration::from_secs(10);

/// Why a pod could not be attached. What was made is taken down again; should a plugin's DEL fail
/// too, what was made stays on record for a detach or a collection of leftovers.
#[derive(Debug, thiserror::Error)]
pub enum CniAttachError {
    /// There is no configuration to attach by.
    #[error("the network is not ready: {0}")]
    NotReady(String),
    /// The pod can't be described to plugins.
    #[error(transparent)]
    Capability(#[from] CapabilityError),
    /// The record can't be kept.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A plugin failed.
    #[error("attach to CNI network {network}")]
    Plugin {
        /// Name of the network.
        network: String,
        /// The reason.
        #[source]
        source: PluginError,
    },
    /// A plugin's result can't be used.
    #[error("use the result of CNI network {network}")]
    Result {
        /// Name of the network.
        network: String,
        /// The reason.
        #[source]
        source: ResultError,
    },
}

/// Why a pod could not be detached wholly. All plugins were asked; it can be tried again.
#[derive(Debug, thiserror::Error)]
pub enum CniDetachError {
    /// The record's configuration can't be read.
    #[error("the recorded configuration of interface {interface} is bad: {reason}")]
    Conf {
        /// Name of the interface.
        interface: String,
        /// What is wrong.
        reason: String,
    },
    /// A plugin failed.
    #[error("detach from CNI network {network}")]
    Plugin {
        /// Name of the network.
        network: String,
        /// The reason.
        #[source]
        source: PluginError,
    },
    /// The record can't be removed.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Why leftovers could not be collected.
#[derive(Debug, thiserror::Error)]
pub enum CniGcError {
    /// A plugin failed.
    #[error("collect leftovers of CNI network {network}")]
    Plugin {
        /// Name of the network.
        network: String,
        /// The reason.
        #[source]
        source: PluginError,
    },
}

impl Cni {
    /// Attaches a pod to every configured network.
    pub(crate) async fn attach(
        &self,
        request: &AttachRequest,
    ) -> Result<Attachment, CniAttachError> {
        let lists = Arc::clone(&self.0.state().lists);
        if lists.is_empty() {
            return Err(CniAttachError::NotReady(self.trouble().unwrap_or_default()));
        }
        let capabilities = capabilities::values(request)?;
        let args = capabilities::arguments(request)?;
        let mut record = Record::new(&request.pod_id, &request.netns);
        let mut attached = Ok(());
        for (number, list) in lists.iter().enumerate() {
            record.networks.push(CniAttachment {
                conf: list.to_json(),
                interface: format!("eth{number}"),
                args: args.clone(),
                capabilities: capabilities.clone(),
                result: None,
            });
            attached = self.0.add(list, &mut record).await;
            if attached.is_err() {
                break;
            }
        }
        let described = attached.and_then(|()| describe(request, &record));
        if described.is_err() {
            let netns = Some(request.netns.as_path());
            if let Err(error) = self
                .0
                .tear_down(&request.pod_id, netns, &record.networks)
                .await
            {
                tracing::warn!(pod = request.pod_id, error = %chain(&error), "undo of CNI ADD");
            }
        }
        described
    }

    /// Detaches a pod from what it was attached to. Missing is success.
    pub(crate) async fn detach(
        &self,
        pod_id: &str,
        netns: Option<&Path>,
        networks: &[CniAttachment],
    ) -> Result<(), CniDetachError> {
        if !networks.is_empty() {
            return self.0.tear_down(pod_id, netns, networks).await;
        }
        match self.0.records.read(pod_id) {
            Some(record) => self.0.tear_down(pod_id, netns, &record.networks).await,
            None => Ok(()),
        }
    }

    /// Takes down what is on record for pods not named here; plugins that take long do so in the
    /// background.
    pub(crate) async fn sweep(&self, known: &[String]) {
        let names: HashSet<&str> = known.iter().map(String::as_str).collect();
        let mut unknown = self.0.records.pods();
        unknown.retain(|pod_id| !names.contains(pod_id.as_str()));
        let inner = Arc::clone(&self.0);
        let sweeping = tokio::spawn(async move {
            for pod_id in unknown {
                inner.take_down_unknown(&pod_id).await;
            }
        });
        drop(timeout(SWEEP_WAIT, sweeping).await);
    }

    /// Tells plugins (since 1.1) which attachments are left.
    pub(crate) async fn gc(&self, known: &[String]) -> Result<(), CniGcError> {
        let lists = Arc::clone(&self.0.state().lists);
        let mut result = Ok(());
        for list in lists.iter() {
            if list.version >= Version::STATUS_AND_GC && !list.disable_gc {
                result = result.and(self.0.collect(list, known).await);
            }
        }
        result
    }
}

impl Inner {
    async fn take_down_unknown(&self, pod_id: &str) {
        let Some(record) = self.records.read(pod_id) else {
            return;
        };
        tracing::info!(pod_id, "removing the CNI leftovers of an unknown pod");
        let netns = record.netns.exists().then_some(record.netns.as_path());
        if let Err(error) = self.tear_down(pod_id, netns, &record.networks).await {
            tracing::warn!(pod_id, error = %chain(&error), "CNI leftovers stay behind");
        }
    }

    /// Runs a list's plugins for the last network of the record.
    async fn add(&self, list: &ConfList, record: &mut Record) -> Result<(), CniAttachError> {
        // On record first: a crash from here on must not leave what nobody knows of.
        self.records.write(record)?;
        let (pod_id, netns) = (record.pod_id.clone(), record.netns.clone());
        let Some(network) = record.networks.last_mut() else {
            return Ok(());
        };
        let subject = subject(&pod_id, Some(&netns), network);
        // DEL gets the whole chain's result or none.
        let mut before: Option<Value> = None;
        for plugin in &list.plugins {
            let input = input(list, plugin, network, before.as_ref());
            let output = self
                .executor
                .run(Verb::Add, &plugin.kind, &input, &subject)
                .await;
            let output = output.map_err(|source| CniAttachError::Plugin {
                network: list.name.clone(),
                source,
            })?;
            let result =
                serde_json::from_slice(&output).map_err(|source| CniAttachError::Result {
                    network: list.name.clone(),
                    source: ResultError::Json(source),
                })?;
            before = Some(result);
        }
        network.result = before;
        self.records.write(record)?;
        Ok(())
    }

    /// Runs DEL of all plugins in reverse; goes on past those that fail.
    async fn tear_down(
        &self,
        pod_id: &str,
        netns: Option<&Path>,
        networks: &[CniAttachment],
    ) -> Result<(), CniDetachError> {
        let mut result = Ok(());
        for network in networks.iter().rev() {
            let list = match ConfList::from_json(&network.conf) {
                Ok(list) => list,
                Err(reason) => {
                    let interface = network.interface.clone();
                    result = result.and(Err(CniDetachError::Conf { interface, reason }));
                    continue;
                }
            };
            let subject = subject(pod_id, netns, network);
            for plugin in list.plugins.iter().rev() {
                let before = network
                    .result
                    .as_ref()
                    .filter(|_| list.version >= Version::CHECK);
                let input = input(&list, plugin, network, before);
                match self
                    .executor
                    .run(Verb::Del, &plugin.kind, &input, &subject)
                    .await
                {
                    Ok(_) => {}
                    // Many plugins can't do without the namespace, although they should; what was
                    // in it is gone with it.
                    Err(error @ (PluginError::Refused { .. } | PluginError::Failed { .. }))
                        if netns.is_none() =>
                    {
                        tracing::warn!(pod_id, error = %chain(&error), "CNI DEL without a namespace");
                    }
                    Err(source) => {
                        tracing::warn!(pod_id, error = %chain(&source), "CNI DEL failed");
                        let network = list.name.clone();
                        result = result.and(Err(CniDetachError::Plugin { network, source }));
                    }
                }
            }
        }
        result?;
        Ok(self.records.remove(pod_id)?)
    }

    /// Runs GC of all plugins; goes on past those that fail.
    async fn collect(&self, list: &ConfList, known: &[String]) -> Result<(), CniGcError> {
        let mut valid = Vec::new();
        for pod_id in known {
            let Some(record) = self.records.read(pod_id) else {
                // Better one too many than a running pod's address given away.
                valid.push(json!({"containerID": pod_id, "ifname": "eth0"}));
                continue;
            };
            let of_list = |network: &&CniAttachment| {
                network.conf.get("name").and_then(Value::as_str) == Some(list.name.as_str())
            };
            valid.extend(
                record
                    .networks
                    .iter()
                    .filter(of_list)
                    .map(|network| json!({"containerID": pod_id, "ifname": network.interface})),
            );
        }
        let mut result = Ok(());
        for plugin in &list.plugins {
            let mut conf = base(list, plugin);
            conf.insert("cni.dev/valid-attachments".to_owned(), json!(valid));
            let (input, nobody) = (Value::Object(conf), Subject::default());
            let collected = self
                .executor
                .run(Verb::Gc, &plugin.kind, &input, &nobody)
                .await;
            let failed = |source| CniGcError::Plugin {
                network: list.name.clone(),
                source,
            };
            let collected = collected.map(drop).map_err(failed);
            result = result.and(collected);
        }
        result
    }
}

fn subject(pod_id: &str, netns: Option<&Path>, network: &CniAttachment) -> Subject {
    Subject {
        container_id: pod_id.to_owned(),
        netns: netns.map(PathBuf::from).unwrap_or_default(),
        interface: network.interface.clone(),
        args: network.args.clone(),
    }
}

/// What a plugin reads.
fn input(
    list: &ConfList,
    plugin: &PluginConf,
    network: &CniAttachment,
    before: Option<&Value>,
) -> Value {
    let mut conf = base(list, plugin);
    let runtime_config = capabilities::runtime_config(plugin, &network.capabilities);
    if !runtime_config.is_empty() {
        conf.insert("runtimeConfig".to_owned(), Value::Object(runtime_config));
    }
    if let Some(before) = before {
        conf.insert("prevResult".to_owned(), before.clone());
    }
    Value::Object(conf)
}

fn base(list: &ConfList, plugin: &PluginConf) -> Map<String, Value> {
    let mut conf = plugin.conf.clone();
    conf.insert("name".to_owned(), json!(list.name));
    conf.insert("cniVersion".to_owned(), json!(list.version.to_string()));
    conf
}

/// The first network is the pod's main one.
fn describe(request: &AttachRequest, record: &Record) -> Result<Attachment, CniAttachError> {
    let mut attachment = Attachment {
        provider: Provider::Cni,
        interface: "eth0".to_owned(),
        host_interface: None,
        ips: Vec::new(),
        mac: None,
        gateways: Vec::new(),
        port_mappings: request
            .port_mappings
            .iter()
            .filter(|m| m.host_port > 0)
            .cloned()
            .collect(),
        cni: record.networks.clone(),
    };
    for (number, network) in record.networks.iter().enumerate() {
        let name = network
            .conf
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let failed = |source| CniAttachError::Result {
            network: name.to_owned(),
            source,
        };
        let list = ConfList::from_json(&network.conf)
            .map_err(|reason| failed(ResultError::Invalid(reason)))?;
        let result = network.result.as_ref();
        let result = result.ok_or_else(|| failed(ResultError::Invalid("there is none".into())))?;
        let found = result::addresses(result, list.version, &network.interface).map_err(failed)?;
        if number == 0 {
            if found.ips.is_empty() {
                return Err(failed(ResultError::Invalid("it has no address".into())));
            }
            attachment.ips = found.ips;
            attachment.gateways = found.gateways;
            attachment.mac = found.mac;
            attachment.host_interface = found.host_interface;
        }
    }
    Ok(attachment)
}
