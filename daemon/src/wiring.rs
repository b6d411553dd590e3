//! Puts the parts together, in the order in which they need each other, and runs them.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use joey_image::{ImageConfig, ImageStore};
use joey_network::{CniFolder, NetworkConfig};
use joey_runtime::model::Owner;
use joey_runtime::{HandlerConfig, Runtime};
use joey_streaming::TlsFiles;
use thiserror::Error;

use crate::api::{Api, MAX_LOG_FILES};
use crate::args::Settings;
use crate::config::{self, CgroupDriver, Config, ConfigError, Streaming};
use crate::lock::{LockError, RootLock};
use crate::logging::Logging;
use crate::metrics::{self, Count, MetricsError};
use crate::notify::Notify;
use crate::reload::Reloader;
use crate::serve::{self, Lanes, Listeners, ServeError, Services, Shared};
use crate::shutdown::{Asked, Signals};
use crate::socket;

/// Of what a limit counts: more is no limit.
const MAX_AT_ONCE: usize = 1_000_000;

/// The daemon could not start, or broke off.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The root folder is in use.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// No threads.
    #[error("start threads")]
    Threads(#[source] io::Error),
    /// No signal handlers.
    #[error("take over the signals")]
    Signals(#[source] io::Error),
    /// A folder could not be made.
    #[error("create {path}")]
    Folder {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another TLS library was installed first; a defect.
    #[error("another TLS provider is installed")]
    Tls,
    /// The image store can't be used.
    #[error("open the image store")]
    Images(#[source] joey_image::OpenError),
    /// The runtime can't be used.
    #[error("open the runtime")]
    Runtime(#[source] joey_runtime::Error),
    /// The streaming server can't be used.
    #[error(transparent)]
    Streaming(#[from] joey_streaming::BindError),
    /// The metrics can't be served.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The sockets can't be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// When a part can't be opened, or serving breaks off.
pub async fn run(settings: Settings, config: Config, logging: Logging) -> Result<(), StartError> {
    check(&config)?;
    let mut signals = Signals::listen().map_err(StartError::Signals)?;
    for path in [&config.root, &config.state] {
        make_folder(path)?;
    }
    let _lock = RootLock::take(&config.root)?;
    set_oom_score(config.oom_score_adj);
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| StartError::Tls)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), root = %config.root.display(), "starting");

    let images = ImageStore::open(image_config(&config)).map_err(StartError::Images)?;
    let runtime = Runtime::open(runtime_config(&config)?, Arc::clone(&images))
        .await
        .map_err(StartError::Runtime)?;
    let shared = Arc::new(Shared::new(
        Lanes::new(&config.limits),
        !config.tracing.endpoint.is_empty(),
    ));
    let streaming = open_streaming(&config, &runtime).await?;
    tokio::spawn(Arc::clone(&streaming).serve(shared.stopping.clone()));
    let cri = open_cri(&config, &runtime, &images, Arc::clone(&streaming));
    let api = Api::new(Arc::clone(&runtime), Arc::clone(&images), &config);
    serve_metrics(&config, &runtime, &shared).await?;
    let listeners = Listeners::open(&config.listen)?;

    let notify = Notify::from_environment();
    notify.ready();
    tracing::info!(listen = ?config.listen, "serving");
    let grace = config.shutdown_grace.duration();
    let reloader = Reloader::new(settings, config, logging, streaming);
    let services = Services {
        cri,
        api: api.clone(),
        shared,
    };
    let notify = Arc::new(notify);
    let stop = {
        let notify = Arc::clone(&notify);
        async move {
            while signals.next().await == Asked::Reload {
                notify.reloading();
                reloader.reload();
                notify.ready();
            }
            tracing::info!("stopping; pods run on");
            notify.stopping();
        }
    };
    tokio::select! {
        served = serve::serve(listeners, services, grace, stop) => Ok(served?),
        () = api.watch() => Ok(()),
        () = notify.watchdog() => Ok(()),
    }
}

/// Refuses what no part could use before any part is opened.
fn check(config: &Config) -> Result<(), StartError> {
    let log_files = config.containers.log_max_files;
    if !(1..=MAX_LOG_FILES).contains(&log_files) {
        let key = "containers.log_max_files";
        let what = format!("{log_files} is not in 1 … {MAX_LOG_FILES}");
        return Err(ConfigError::Value { key, what }.into());
    }
    for (key, count) in [
        ("streaming.max_sessions", config.streaming.max_sessions),
        (
            "registry.max_concurrent_downloads",
            config.registry.max_concurrent_downloads,
        ),
    ] {
        if !(1..=MAX_AT_ONCE).contains(&count) {
            let what = format!("{count} is not in 1 … {MAX_AT_ONCE}");
            return Err(ConfigError::Value { key, what }.into());
        }
    }
    for (key, time) in [
        ("streaming.idle_timeout", &config.streaming.idle_timeout),
        (
            "registry.progress_timeout",
            &config.registry.progress_timeout,
        ),
        ("network.cni_timeout", &config.network.cni_timeout),
    ] {
        if time.duration().is_zero() {
            let what = "it must be more than 0".to_owned();
            return Err(ConfigError::Value { key, what }.into());
        }
    }
    for address in &config.listen {
        socket::path_of(address).map_err(ServeError::from)?;
    }
    tls_files(&config.streaming)?;
    for (key, address) in [
        ("streaming.address", &config.streaming.address),
        ("metrics.address", &config.metrics.address),
    ] {
        if !address.is_empty() && address.parse::<SocketAddr>().is_err() {
            let what = format!("{address:?} is no address: write 127.0.0.1:1234");
            return Err(ConfigError::Value { key, what }.into());
        }
    }
    Ok(())
}

fn make_folder(path: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    // Others may pass through to a pod's files but not list them.
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(path);
    made.map_err(|source| StartError::Folder {
        path: path.to_owned(),
        source,
    })
}

/// The kernel should end anything else first; without CAP_SYS_RESOURCE it may not be asked to.
fn set_oom_score(score: i32) {
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
        tracing::info!(score, %error, "the daemon's oom_score_adj stays as it is");
    }
}

fn image_config(config: &Config) -> ImageConfig {
    ImageConfig {
        config_dirs: vec![config.registry.config_path.clone()],
        max_concurrent_downloads: config.registry.max_concurrent_downloads,
        progress_timeout: config.registry.progress_timeout.duration(),
        pinned: config.images.pinned.clone(),
        ..ImageConfig::new(config.root.join("images"))
    }
}

/// Rounded up: a shorter limit than asked for would fail what was meant to be waited for.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

fn runtime_config(config: &Config) -> Result<joey_runtime::Config, ConfigError> {
    let network = &config.network;
    Ok(joey_runtime::Config {
        root: config.root.clone(),
        state: config.state.clone(),
        shim: shim_path(&config.runtime.shim),
        cgroup_driver: match config.cgroup.driver {
            CgroupDriver::Auto => joey_cgroup::DriverChoice::Auto,
            CgroupDriver::Cgroupfs => joey_cgroup::DriverChoice::Cgroupfs,
            CgroupDriver::Systemd => joey_cgroup::DriverChoice::Systemd,
        },
        network: NetworkConfig {
            mode: network.mode,
            bridge: network.bridge.clone(),
            subnets: network.subnets.clone(),
            mtu: (network.mtu > 0).then_some(network.mtu),
            masquerade: network.masquerade,
            masquerade_except: network.masquerade_except.clone(),
            cni_conf_dir: network.cni_conf_dir.clone(),
            cni_bin_dirs: network.cni_bin_dirs.clone(),
            cni_max_conf: network.cni_max_conf,
            cni_timeout_seconds: whole_seconds(network.cni_timeout.duration()),
            host_ports_bind: network.host_ports_bind,
            handlers: cni_of_handlers(config),
            state_dir: config.root.join("network"),
            run_dir: config.state.join("network"),
        },
        handlers: handlers(config),
        default_cgroup_parent: config.cgroup.default_parent.clone(),
    })
}

fn handlers(config: &Config) -> BTreeMap<String, HandlerConfig> {
    let with_options = |(name, handler): (&String, &config::Handler)| {
        let options = HandlerConfig {
            privileged_without_host_devices: handler.privileged_without_host_devices,
        };
        (name.clone(), options)
    };
    config.runtime.handlers.iter().map(with_options).collect()
}

fn cni_of_handlers(config: &Config) -> BTreeMap<String, CniFolder> {
    let handlers = config.runtime.handlers.iter();
    let own = handlers.filter(|(_, handler)| !handler.cni_conf_dir.as_os_str().is_empty());
    own.map(|(name, handler)| {
        let folder = CniFolder {
            conf_dir: handler.cni_conf_dir.clone(),
            max_conf: handler.cni_max_conf,
        };
        (name.clone(), folder)
    })
    .collect()
}

/// The shim configured, or the one beside this program, or the one in `PATH`.
fn shim_path(configured: &Path) -> PathBuf {
    const NAME: &str = "joey-shim";
    if !is_empty(configured) {
        return configured.to_owned();
    }
    let beside = std::env::current_exe()
        .ok()
        .map(|own| own.with_file_name(NAME));
    if let Some(beside) = beside.filter(|path| path.is_file()) {
        return beside;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(NAME))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| Path::new("/usr/libexec/joey").join(NAME))
}

async fn open_streaming(
    config: &Config,
    runtime: &Arc<Runtime>,
) -> Result<Arc<joey_streaming::Server>, StartError> {
    let streaming = &config.streaming;
    let address = streaming.address.parse().map_err(|_| ConfigError::Value {
        key: "streaming.address",
        what: format!("{:?} is no address: write 127.0.0.1:0", streaming.address),
    })?;
    let settings = joey_streaming::StreamingConfig {
        address,
        idle_timeout: streaming.idle_timeout.duration(),
        max_connections: streaming.max_sessions,
        base_url: Some(streaming.base_url.clone()).filter(|url| !url.is_empty()),
        tls: tls_files(streaming)?,
        ..joey_streaming::StreamingConfig::default()
    };
    let streams = Arc::new(joey_cri::RuntimeStreams::new(Arc::clone(runtime)));
    Ok(joey_streaming::Server::bind(settings, streams).await?)
}

/// The certificate of streaming, where one is configured.
fn tls_files(streaming: &Streaming) -> Result<Option<TlsFiles>, ConfigError> {
    let (certificate, key) = (&streaming.tls_certificate, &streaming.tls_key);
    let missing = |key, other: &str| ConfigError::Value {
        key,
        what: format!("is empty, but {other} is set"),
    };
    match (is_empty(certificate), is_empty(key)) {
        (true, true) => Ok(None),
        (true, false) => Err(missing("streaming.tls_certificate", "streaming.tls_key")),
        (false, true) => Err(missing("streaming.tls_key", "streaming.tls_certificate")),
        (false, false) => Ok(Some(TlsFiles {
            certificate: certificate.clone(),
            key: key.clone(),
        })),
    }
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

fn open_cri(
    config: &Config,
    runtime: &Arc<Runtime>,
    images: &Arc<ImageStore>,
    streaming: Arc<joey_streaming::Server>,
) -> joey_cri::Service {
    let options = joey_cri::Options {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        config: serde_json::to_value(config).unwrap_or_default(),
    };
    joey_cri::Service::new(Arc::clone(runtime), Arc::clone(images), streaming, options)
}

async fn serve_metrics(
    config: &Config,
    runtime: &Arc<Runtime>,
    shared: &Arc<Shared>,
) -> Result<(), StartError> {
    if config.metrics.address.is_empty() {
        return Ok(());
    }
    let (runtime, shared) = (Arc::clone(runtime), Arc::clone(shared));
    let render = move || {
        let mut counts = Vec::new();
        for (owner, name) in [(Owner::Cri, "cri"), (Owner::Joey, "joey")] {
            let (pods, containers) = (runtime.pods(owner).len(), runtime.containers(owner).len());
            counts.push(Count {
                kind: "pods",
                owner: name,
                count: pods,
            });
            counts.push(Count {
                kind: "containers",
                owner: name,
                count: containers,
            });
        }
        metrics::render(&shared.calls, &shared.lanes, &counts).unwrap_or_default()
    };
    Ok(metrics::serve(&config.metrics.address, render).await?)
}
