//! Makes a pod ready: its shim, namespaces and addresses.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::Arc;

use joey_cgroup::{Group, Resources};
use joey_network::{AttachRequest, netns};
use joey_proto::shim::StartPod;
use joey_shim_client::Shim;
use tracing::{Instrument as _, debug_span};

use super::files;
use crate::config::netns_path;
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::ids;
use crate::model::{NamespaceMode, PodConfig, PodRecord, PodState, Protocol, RECORD_VERSION};
use crate::objects::Pod;
use crate::oci;
use crate::runtime::Runtime;
use crate::selinux::{self, Labels};
use crate::wire::{id_mappings, texts};

/// Of a pod's `/dev/shm`; the field's common default.
const SHM_BYTES: u64 = 64 << 20;

impl Runtime {
    /// Makes a pod and returns its id. A pod that is ready already under the same name and was
    /// asked for in the same words is returned.
    ///
    /// # Errors
    /// Nothing is left of the pod after one, so that the same name can be tried again.
    pub async fn run_pod(self: &Arc<Self>, config: PodConfig) -> Result<String> {
        self.validate_pod(&config)?;
        let key = format!(
            "{:?}/{}/{}/{}/{}",
            config.owner, config.namespace, config.name, config.uid, config.attempt
        );
        let runtime = Arc::clone(self);
        self.pod_operations
            .run(
                key,
                move || async move { runtime.run_new_pod(config).await },
            )
            .await
    }

    fn validate_pod(&self, config: &PodConfig) -> Result<()> {
        for (field, value) in [
            ("metadata.name", &config.name),
            ("metadata.uid", &config.uid),
        ] {
            if value.is_empty() {
                return Err(Error::invalid(format!("pod {field} is empty")));
            }
        }
        let handler = &config.runtime_handler;
        if !handler.is_empty() && !self.config.handlers.contains_key(handler) {
            return Err(Error::invalid(format!(
                "no runtime for handler {handler:?} is configured"
            )));
        }
        for key in config.sysctls.keys() {
            // An empty part is a `..`, or a path that is no sysctl's.
            if key.split(['.', '/']).any(str::is_empty) {
                return Err(Error::invalid(format!("{key:?} is no sysctl's name")));
            }
            if !is_namespaced(key, config) {
                return Err(Error::invalid(format!(
                    "sysctl {key} is not of a namespace that the pod has of its own"
                )));
            }
        }
        oci::check_apparmor(&self.features, &config.security.apparmor)?;
        selinux::check(&self.features, config.security.selinux.as_ref())?;
        if config.user_namespace.is_some() && config.network == NamespaceMode::Node {
            return Err(Error::invalid(
                "a pod with a user namespace can't use the host's network",
            ));
        }
        Ok(())
    }

    async fn run_new_pod(self: Arc<Self>, config: PodConfig) -> Result<String> {
        if let Some(pod) = self.find_pod(&config) {
            let record = pod.record();
            if record.state == PodState::Ready && record.config == config {
                return Ok(record.id.clone());
            }
            return Err(Error::NameTaken {
                kind: "pod sandbox",
                name: format!("{}_{}_{}", config.name, config.namespace, config.attempt),
                id: record.id.clone(),
            });
        }
        let pod = Arc::new(Pod::new(PodRecord {
            version: RECORD_VERSION,
            id: ids::new_id()?,
            config,
            overlays: Vec::new(),
            state: PodState::Starting,
            created_at: ids::now(),
            network: None,
            shim: None,
            init_pid: 0,
            boot_id: self.boot_id.clone(),
            cause: None,
        }));
        pod.save(&self.pod_records)?;
        let made = match self.make_ready(&pod).await {
            Ok(()) => {
                pod.change(|record| record.state = PodState::Ready);
                pod.save(&self.pod_records)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = made {
            if let Err(error) = self.undo_run(pod).await {
                tracing::warn!(error = %error.chain(), "something of a failed pod stays behind");
            }
            return Err(error);
        }
        self.add_pod(Arc::clone(&pod));
        self.announce(&pod, pod.id(), EventKind::Created);
        self.announce(&pod, pod.id(), EventKind::Started);
        self.end_if_lost(&pod);
        Ok(pod.id().to_owned())
    }

    /// Makes a pod that is not ready, or whose containers have ended, ready anew, in the same words.
    /// The caller holds `pod.changing`. After an error it is not ready.
    pub(crate) async fn run_again(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<()> {
        // Recorded first, as by a stop.
        pod.change(|record| record.state = PodState::NotReady);
        self.save_or_warn(pod);
        if let Err(error) = self.tear_down(pod).await {
            self.save_or_warn(pod);
            return Err(error);
        }
        // The exit records of the former life are not this one's.
        self.remove_pod_folder(pod.id())?;
        let made = match self.make_ready(pod).await {
            Ok(()) => {
                pod.change(|record| {
                    record.state = PodState::Ready;
                    record.cause = None;
                });
                pod.save(&self.pod_records)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = made {
            pod.change(|record| record.state = PodState::NotReady);
            if let Err(error) = self.tear_down(pod).await {
                tracing::warn!(pod = pod.id(), error = %error.chain(), "a failed pod is not torn down yet");
            }
            self.save_or_warn(pod);
            return Err(error);
        }
        self.announce(pod, pod.id(), EventKind::Started);
        self.end_if_lost(pod);
        Ok(())
    }

    /// Leaves nothing of a pod that did not become ready. What can't be torn down now stays, not
    /// ready, so that a stop or the next start can finish it.
    async fn undo_run(self: &Arc<Self>, pod: Arc<Pod>) -> Result<()> {
        pod.change(|record| record.state = PodState::NotReady);
        if let Err(error) = self.tear_down(&pod).await {
            tracing::warn!(pod = pod.id(), error = %error.chain(), "a failed pod is not torn down yet");
            self.save_or_warn(&pod);
            self.add_pod(pod);
            return Ok(());
        }
        self.remove_pod_folder(pod.id())?;
        pod.erase(&self.pod_records)
    }

    fn find_pod(&self, config: &PodConfig) -> Option<Arc<Pod>> {
        self.all_pods().into_iter().find(|pod| {
            let other = &pod.record().config;
            other.owner == config.owner
                && other.name == config.name
                && other.namespace == config.namespace
                && other.uid == config.uid
                && other.attempt == config.attempt
        })
    }

    async fn make_ready(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<()> {
        let record = pod.record();
        let (id, config) = (record.id.as_str(), &record.config);
        let folder = self.config.pod_folder(id);
        joey_failpoint::hit("pod.folder.create")
            .and_then(|()| std::fs::create_dir_all(&folder))
            .map_err(|e| Error::file("create", &folder, e))?;
        let host_name = host_name(config);
        files::write(&folder, config, &host_name)?;

        let shim = Shim::spawn(&self.shim_binary, id, &folder)
            .instrument(debug_span!("start shim"))
            .await
            .map_err(|e| Error::step("start the pod's shim", e))?;
        let shim_pid = shim.pid();
        let shim = Arc::new(shim);
        pod.set_shim(Some(Arc::clone(&shim)));
        pod.change(|record| {
            record.shim = Some((shim_pid, ids::start_ticks(shim_pid).unwrap_or_default()));
        });
        // A daemon that is killed now could not ask it who it is while it makes the namespaces.
        pod.save(&self.pod_records)?;
        self.watch(pod, &shim);

        let group = self.init_group(id, config).await?;
        let cgroup_dirs = group.as_ref().map(|group| texts(&group.dirs()));
        let labels = Labels::of_pod(&self.features, &record);
        let request = StartPod {
            cgroup_dirs: cgroup_dirs.unwrap_or_default(),
            selinux_label: labels.map(|labels| labels.file).unwrap_or_default(),
            ..start_pod_request(id, config, host_name.clone())
        };
        let started = shim.start_pod(request);
        let started = started.instrument(debug_span!("make namespaces")).await;
        if let Some(group) = group {
            group.release();
        }
        let started = started.map_err(|e| Error::step("make the pod's namespaces", e))?;
        pod.change(|record| record.init_pid = started.init_pid);
        if let Some(namespace) = started.network {
            let path = netns_path(id);
            netns::pin(namespace.as_fd(), &path).map_err(|e| {
                Error::step(format!("pin the network namespace {}", path.display()), e)
            })?;
            if config.isolated {
                let up = self.network.bring_up_loopback(path).await;
                up.map_err(|e| Error::step("bring up the pod's loopback interface", e))?;
            } else {
                let attached = self.attach_network(pod);
                attached.instrument(debug_span!("attach network")).await?;
                self.hand_over_ports(pod, &shim).await?;
            }
        }
        let record = pod.record();
        let addresses = record.network.as_ref().map(|network| network.ips.clone());
        files::write_hosts(&folder, config, &host_name, &addresses.unwrap_or_default())
    }

    /// The cgroup of the init of a shared PID namespace.
    async fn init_group(&self, id: &str, config: &PodConfig) -> Result<Option<Group>> {
        if config.pid != NamespaceMode::Pod {
            return Ok(None);
        }
        let parent = self.cgroup_parent(&config.cgroup_parent, id);
        let group = self
            .cgroups
            .create(&parent, id, &Resources::default())
            .await;
        group
            .map(Some)
            .map_err(|e| Error::step("create the pod's cgroup", e))
    }

    async fn attach_network(&self, pod: &Pod) -> Result<()> {
        let record = pod.record();
        let config = &record.config;
        let request = AttachRequest {
            pod_id: record.id.clone(),
            pod_name: config.name.clone(),
            pod_namespace: config.namespace.clone(),
            pod_uid: config.uid.clone(),
            handler: config.runtime_handler.clone(),
            netns: netns_path(&record.id),
            port_mappings: config
                .port_mappings
                .iter()
                .filter_map(port_mapping)
                .collect(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            dns: config.dns.as_ref().map(|dns| joey_network::DnsConfig {
                servers: dns.servers.clone(),
                searches: dns.searches.clone(),
                options: dns.options.clone(),
            }),
            cgroup_parent: config.cgroup_parent.clone(),
            ips: Vec::new(),
            mac: None,
        };
        let attachment =
            self.network.attach(request).await.map_err(|e| {
                Error::step(format!("attach pod {} to the network", config.name), e)
            })?;
        pod.change(|record| record.network = Some(attachment));
        Ok(())
    }

    /// Gives the sockets of the pod's host ports to its shim, which outlives this process.
    pub(crate) async fn hand_over_ports(&self, pod: &Pod, shim: &Shim) -> Result<()> {
        if !shim.can_hold_sockets() {
            return Ok(());
        }
        shim.hold_sockets(self.network.take_sockets(pod.id()))
            .await
            .map_err(|e| Error::step("have the pod's shim hold the host ports", e))
    }
}

fn start_pod_request(id: &str, config: &PodConfig, host_name: String) -> StartPod {
    let mappings = config.user_namespace.as_ref();
    let own_network = config.network != NamespaceMode::Node;
    let own_ipc = config.ipc != NamespaceMode::Node;
    StartPod {
        pod_id: id.to_owned(),
        new_network: own_network,
        new_ipc: own_ipc,
        new_uts: own_network,
        new_pid: config.pid == NamespaceMode::Pod,
        uid_mappings: mappings.map(|m| id_mappings(&m.uids)).unwrap_or_default(),
        gid_mappings: mappings.map(|m| id_mappings(&m.gids)).unwrap_or_default(),
        hostname: if own_network {
            host_name
        } else {
            String::new()
        },
        sysctls: sysctls(config).into_iter().collect(),
        shm_bytes: if own_ipc { SHM_BYTES } else { 0 },
        ..StartPod::default()
    }
}

/// Whether a kernel setting is the pod's alone; any other would change the node.
fn is_namespaced(key: &str, config: &PodConfig) -> bool {
    let name = key.replace('/', ".");
    let network = name.starts_with("net.");
    let ipc = name == "kernel.sem"
        || ["kernel.shm", "kernel.msg", "fs.mqueue."]
            .iter()
            .any(|prefix| name.starts_with(prefix));
    (network && config.network != NamespaceMode::Node) || (ipc && config.ipc != NamespaceMode::Node)
}

fn host_name(config: &PodConfig) -> String {
    if config.network == NamespaceMode::Node || config.hostname.is_empty() {
        return rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
    }
    config.hostname.clone()
}

fn port_mapping(port: &crate::model::PortMapping) -> Option<joey_network::PortMapping> {
    (port.host_port > 0).then(|| joey_network::PortMapping {
        protocol: match port.protocol {
            Protocol::Tcp => joey_network::Protocol::Tcp,
            Protocol::Udp => joey_network::Protocol::Udp,
            Protocol::Sctp => joey_network::Protocol::Sctp,
        },
        container_port: port.container_port,
        host_port: port.host_port,
        host_ip: port.host_ip.parse().ok(),
    })
}

/// The kubelet's settings on top of the two that let containers do without privileges what they
/// could on the host: bind low ports and ping.
fn sysctls(config: &PodConfig) -> BTreeMap<String, String> {
    let mut sysctls = BTreeMap::new();
    if config.network != NamespaceMode::Node {
        sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
        if config.user_namespace.is_none() {
            sysctls.insert("net.ipv4.ping_group_range".into(), "0 2147483647".into());
        }
    }
    sysctls.extend(config.sysctls.clone());
    sysctls
}
