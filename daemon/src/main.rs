//! `joeyd`: the daemon. Reads its configuration, opens the image store and the runtime, and serves
//! the CRI and Joey's own API until it is told to stop; pods run on without it.

mod api;
mod args;
mod config;
mod lock;
mod logging;
mod metrics;
mod notify;
mod reload;
mod serve;
mod shutdown;
mod socket;
mod traces;
mod wiring;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command, ConfigCommand, Settings};
use config::{Config, ConfigError};
use traces::Traces;
use wiring::StartError;

/// More threads than this only cost memory: the daemon waits for others most of the time.
const MAX_WORKERS: usize = 8;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("joeyd: {}", joey_runtime::error::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), StartError> {
    match args.command {
        Some(Command::Config(ConfigCommand::Default)) => {
            show(config::EXAMPLE);
            Ok(())
        }
        Some(Command::Config(ConfigCommand::Dump)) => {
            show(&dump(&read(&args.settings)?)?);
            Ok(())
        }
        None => {
            let config = read(&args.settings)?;
            serve(args.settings, config)
        }
    }
}

/// Prints; a reader that has had enough is no error.
fn show(text: &str) {
    std::io::stdout()
        .write_all(text.as_bytes())
        .unwrap_or_default();
}

fn read(settings: &Settings) -> Result<Config, ConfigError> {
    let mut config = config::load(settings.config.as_deref())?;
    settings.apply(&mut config);
    Ok(config)
}

fn dump(config: &Config) -> Result<String, ConfigError> {
    toml::to_string(config).map_err(|error| ConfigError::Merge(error.to_string()))
}

fn serve(settings: Settings, config: Config) -> Result<(), StartError> {
    let workers = std::thread::available_parallelism()
        .map_or(2, usize::from)
        .min(MAX_WORKERS);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .map_err(StartError::Threads)?;
    let wrong = |key, what: String| ConfigError::Value { key, what };
    let traces = {
        let _inside = runtime.enter();
        Traces::start(&config.tracing)
            .map_err(|error| wrong("tracing.endpoint", error.to_string()))?
    };
    let logging = logging::start(&config.log.level, traces.as_ref())
        .map_err(|error| wrong("log.level", error.to_string()))?;
    let served = runtime.block_on(wiring::run(settings, config, logging));
    if let Some(traces) = traces {
        traces.stop();
    }
    // A blocking read that hangs must not hold up the end.
    runtime.shutdown_background();
    served
}
