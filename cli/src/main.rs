//! `joey`: runs and manages containers through the daemon.

mod args;
mod client;
mod commands;
mod error;
mod format;
mod parse;
mod session;
mod table;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

use args::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("joey: start: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(commands::run(args))
}
