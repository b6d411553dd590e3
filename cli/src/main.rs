//! `joey`: runs and manages containers through the daemon.

mod args;
mod auth;
mod client;
mod commands;
mod error;
mod format;
mod limits;
mod parse;
mod session;
mod signals;
mod stdio;
mod table;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

use args::Args;
use error::CliError;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help goes to standard output and is no failure.
            let failed = error.use_stderr();
            drop(error.print());
            return if failed {
                ExitCode::from(error::NOT_RUN)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            stdio::tell(&format!("joey: start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(commands::run(args))
}
