//! `joey completion`.

use clap::CommandFactory;
use clap_complete::Shell;

use super::print;
use crate::args::Args;
use crate::error::CliError;

/// Prints a shell's completion script.
pub fn run(shell: Shell) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "joey", &mut script);
    print(&String::from_utf8_lossy(&script))
}
