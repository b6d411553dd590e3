//! Measures container runtimes by their CRI sockets, in turns, and compares them.
//!
//! `vs-containerd` beside this crate prepares the sides; any other runtime can be described to
//! `--sides` as well. A call that fails or a pod that is left ends the run: such figures would be
//! about something else.

mod error;
mod pod;
mod report;
mod scenario;
mod side;
mod stats;
mod usage;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use serde_json::{Value, json};

use error::BenchError;
use scenario::{Bench, Scenario};
use side::{Place, Side};

/// Measures container runtimes by their CRI sockets, in turns, and compares them with the first
#[derive(Debug, Parser)]
struct Args {
    /// JSON file: a list of runtimes, each with name, socket, pid, group, data, folder, version
    #[arg(long)]
    sides: PathBuf,
    /// Folder of results.txt and results.json
    #[arg(long)]
    out: PathBuf,
    /// A rough result within a minute or two
    #[arg(long)]
    quick: bool,
    /// What to measure; by default latency, throughput, idle and image
    scenarios: Vec<Scenario>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("joey-bench: {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                eprint!(": {error}");
                cause = error.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), BenchError> {
    let places = read_places(&args.sides)?;
    let mut sides = Vec::new();
    for place in &places {
        sides.push(Side::connect(place.clone()).await?);
    }
    let mut bench = Bench::new(sides, args.quick).await?;
    let scenarios = if args.scenarios.is_empty() {
        Scenario::DEFAULT.to_vec()
    } else {
        args.scenarios
    };
    let mut text = String::new();
    for scenario in scenarios {
        bench.run(scenario).await?;
        let table = bench.report.table();
        println!("{table}");
        text.push_str(&table);
        // After each scenario, so that a later failure does not take the figures along.
        write(&args.out, "results.txt", &text)?;
        let results = results(&places, args.quick, bench.report.json())?;
        write(&args.out, "results.json", &results)?;
    }
    Ok(())
}

fn read_places(path: &Path) -> Result<Vec<Place>, BenchError> {
    let text = std::fs::read_to_string(path).map_err(BenchError::file(path))?;
    serde_json::from_str(&text).map_err(|source| BenchError::Sides {
        path: path.to_owned(),
        source,
    })
}

fn results(places: &[Place], quick: bool, sections: Value) -> Result<String, BenchError> {
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let all = json!({
        "kernel": kernel.trim(),
        "processors": processors,
        "quick": quick,
        "sides": places,
        "sections": sections,
    });
    serde_json::to_string_pretty(&all).map_err(BenchError::Encode)
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), BenchError> {
    let path = folder.join(name);
    std::fs::write(&path, text).map_err(BenchError::file(&path))
}
