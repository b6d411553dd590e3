//! The daemon's configuration: what can be set, and what it is when nothing is.

mod load;
mod value;

use std::collections::BTreeMap;
use std::path::PathBuf;

use joey_network::{IpNet, Mode as NetworkMode};
use serde::{Deserialize, Serialize};

pub use load::{ConfigError, load};
pub use value::{Size, Timespan};

/// Read where no `--config` is given; it may be absent.
pub const DEFAULT_FILE: &str = "/etc/joey/config.toml";
/// Every key with its default, as `joeyd config default` prints it.
pub const EXAMPLE: &str = include_str!("../../../packaging/config.toml");

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What must survive a reboot.
    pub root: PathBuf,
    /// What must not.
    pub state: PathBuf,
    /// `unix://` addresses that serve the CRI and Joey's own API.
    pub listen: Vec<String>,
    /// Of the daemon itself; the kernel knows its range.
    pub oom_score_adj: i32,
    /// How long calls under way may take at a stop.
    pub shutdown_grace: Timespan,
    /// Messages.
    pub log: Log,
    /// How many calls are served at once.
    pub limits: Limits,
    /// Registries.
    pub registry: Registry,
    /// Images.
    pub images: Images,
    /// Containers of the `joey` command.
    pub containers: Containers,
    /// Pods' networks.
    pub network: Network,
    /// Cgroups.
    pub cgroup: Cgroup,
    /// Exec, attach and port-forward over HTTP.
    pub streaming: Streaming,
    /// The shim and runtime handlers.
    pub runtime: Runtime,
    /// Prometheus.
    pub metrics: Metrics,
    /// OpenTelemetry.
    pub tracing: Tracing,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: "/var/lib/joey".into(),
            state: "/run/joey".into(),
            listen: vec!["unix:///run/joey/joey.sock".into()],
            oom_score_adj: -999,
            shutdown_grace: Timespan::seconds(10),
            log: Log::default(),
            limits: Limits::default(),
            registry: Registry::default(),
            images: Images::default(),
            containers: Containers::default(),
            network: Network::default(),
            cgroup: Cgroup::default(),
            streaming: Streaming::default(),
            runtime: Runtime::default(),
            metrics: Metrics::default(),
            tracing: Tracing::default(),
        }
    }
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives for single modules.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".into(),
        }
    }
}

/// `[limits]`: calls served at once, each lane apart from the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Calls that change or list something.
    pub calls: usize,
    /// `PullImage`.
    pub pulls: usize,
    /// `ExecSync`.
    pub execs: usize,
    /// Calls that stay open: events, logs, attach, exec, wait.
    pub streams: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls: 256,
            pulls: 16,
            execs: 128,
            streams: 1024,
        }
    }
}

/// `[registry]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// Folder of `<host>/hosts.toml` files.
    pub config_path: PathBuf,
    /// Layers of one image fetched and unpacked at once.
    pub max_concurrent_downloads: usize,
    /// A transfer that makes no real progress for this long is broken off and resumed.
    pub progress_timeout: Timespan,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            config_path: "/etc/joey/certs.d".into(),
            max_concurrent_downloads: 4,
            progress_timeout: Timespan::seconds(60),
        }
    }
}

/// `[images]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Images {
    /// References reported as pinned: the kubelet never removes them.
    pub pinned: Vec<String>,
}

/// `[containers]`: of the `joey` command; the kubelet says it for its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Containers {
    /// A log goes on in a new file before it grows beyond this; 0: it grows.
    pub log_max_size: Size,
    /// Log files of a container that are kept, with the current one.
    pub log_max_files: u32,
}

impl Default for Containers {
    fn default() -> Self {
        Self {
            log_max_size: Size::mebibytes(10),
            log_max_files: 5,
        }
    }
}

/// `[network]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Who gives pods their network.
    pub mode: NetworkMode,
    /// The device that has the built-in network's gateway addresses.
    pub bridge: String,
    /// The built-in network's ranges, until the kubelet names the node's podCIDR; empty: the first
    /// free one of 10.88.0.0/16 to 10.127.0.0/16.
    pub subnets: Vec<IpNet>,
    /// Of pods' interfaces; 0: that of the host's default route.
    pub mtu: u32,
    /// Packets that leave the node get its address.
    pub masquerade: bool,
    /// Destinations that see the pod's own address all the same.
    pub masquerade_except: Vec<IpNet>,
    /// A socket is held for each host port.
    pub host_ports_bind: bool,
    /// Watched for `*.conf`, `*.conflist` and `*.json`.
    pub cni_conf_dir: PathBuf,
    /// Searched for plugins, in order.
    pub cni_bin_dirs: Vec<PathBuf>,
    /// CNI configurations a pod is attached to; 0: all.
    pub cni_max_conf: usize,
    /// The longest one plugin may run.
    pub cni_timeout: Timespan,
}

impl Default for Network {
    fn default() -> Self {
        let network = joey_network::NetworkConfig::default();
        Self {
            mode: network.mode,
            bridge: network.bridge,
            subnets: network.subnets,
            mtu: network.mtu.unwrap_or(0),
            masquerade: network.masquerade,
            masquerade_except: network.masquerade_except,
            host_ports_bind: network.host_ports_bind,
            cni_conf_dir: network.cni_conf_dir,
            cni_bin_dirs: network.cni_bin_dirs,
            cni_max_conf: network.cni_max_conf,
            cni_timeout: Timespan::seconds(network.cni_timeout_seconds),
        }
    }
}

/// Who makes cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriver {
    /// systemd where it is the init, files elsewhere.
    #[default]
    Auto,
    /// Files.
    Cgroupfs,
    /// systemd units.
    Systemd,
}

/// `[cgroup]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cgroup {
    /// Who makes cgroups; the kubelet is told.
    pub driver: CgroupDriver,
    /// Parent of pods that name none; empty is Joey's own for the driver.
    pub default_parent: String,
}

/// `[streaming]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Streaming {
    /// Where the URLs of exec, attach and port-forward are served; port 0 is any free one.
    pub address: String,
    /// A stream without traffic ends after this time.
    pub idle_timeout: Timespan,
    /// Streams at once.
    pub max_sessions: usize,
    /// What the URLs begin with instead, behind a proxy; empty: `http://<address>`, with a certificate
    /// `https://<address>`.
    pub base_url: String,
    /// PEM file of the certificate and its issuers, to serve TLS; empty: plain HTTP.
    pub tls_certificate: PathBuf,
    /// PEM file of its private key.
    pub tls_key: PathBuf,
}

impl Default for Streaming {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:0".into(),
            idle_timeout: Timespan::seconds(4 * 3600),
            max_sessions: 1000,
            base_url: String::new(),
            tls_certificate: PathBuf::new(),
            tls_key: PathBuf::new(),
        }
    }
}

/// `[runtime]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Runtime {
    /// The shim's program; empty: `joey-shim` beside `joeyd`, else in `PATH`.
    pub shim: PathBuf,
    /// Runtime handlers besides the default one, by name.
    pub handlers: BTreeMap<String, Handler>,
}

/// `[runtime.handlers.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Handler {
    /// CNI configurations of its pods, whatever `network.mode`; empty: the node's network.
    pub cni_conf_dir: PathBuf,
    /// Of these configurations, how many a pod is attached to; 0: all.
    pub cni_max_conf: usize,
    /// Privileged containers get only the devices they ask for.
    pub privileged_without_host_devices: bool,
}

impl Default for Handler {
    fn default() -> Self {
        Self {
            cni_conf_dir: PathBuf::new(),
            cni_max_conf: Network::default().cni_max_conf,
            privileged_without_host_devices: false,
        }
    }
}

/// `[metrics]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// `host:port` of the Prometheus text at `/metrics`; empty: none.
    pub address: String,
}

/// `[tracing]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tracing {
    /// `host:port` of an OpenTelemetry collector (OTLP over gRPC, without TLS); empty: no traces.
    pub endpoint: String,
    /// Of a million calls whose callers did not decide, how many are traced.
    pub sampling_rate_per_million: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(table: &toml::Table, prefix: &str, into: &mut Vec<String>) {
        for (key, value) in table {
            match value {
                toml::Value::Table(table) if !table.is_empty() => {
                    keys(table, &format!("{prefix}{key}."), into);
                }
                _ => into.push(format!("{prefix}{key}")),
            }
        }
    }

    #[test]
    fn the_example_holds_the_defaults_and_every_key() {
        let example: Config = toml::from_str(EXAMPLE).unwrap();
        assert_eq!(example, Config::default());
        let table = toml::Table::try_from(Config::default()).unwrap();
        let (mut wanted, mut written) = (Vec::new(), Vec::new());
        keys(&table, "", &mut wanted);
        keys(&EXAMPLE.parse().unwrap(), "", &mut written);
        wanted.retain(|key| key != "runtime.handlers"); // no handler has a default
        for key in &wanted {
            assert!(written.contains(key), "packaging/config.toml lacks {key}");
        }
    }

    #[test]
    fn every_key_is_documented() {
        let page = include_str!("../../../docs/config.md");
        let table = toml::Table::try_from(Config::default()).unwrap();
        let mut all = Vec::new();
        keys(&table, "", &mut all);
        for key in all {
            assert!(
                page.contains(&format!("| `{key}` |")),
                "docs/config.md lacks {key}"
            );
        }
    }
}
