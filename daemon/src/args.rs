//! The command line of `joeyd`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

use crate::config::Config;

/// The container runtime daemon of a node: the CRI and Joey's own API on a unix socket.
#[derive(Debug, Parser)]
#[command(name = "joeyd", version, disable_help_subcommand = true)]
pub struct Args {
    /// What is read and what it is overridden with.
    #[command(flatten)]
    pub settings: Settings,
    /// Instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Flags that win over the configuration files.
#[derive(Debug, Default, ClapArgs)]
pub struct Settings {
    /// Configuration file; conf.d/*.toml beside it is read too [default: /etc/joey/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of what must survive a reboot [default: /var/lib/joey]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub root: Option<PathBuf>,
    /// Folder of what need not survive a reboot [default: /run/joey]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub state: Option<PathBuf>,
    /// Address to serve on; may be repeated [default: unix:///run/joey/joey.sock]
    #[arg(long, global = true, value_name = "unix://PATH")]
    pub listen: Vec<String>,
    /// error, warn, info, debug or trace [default: info]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// What else the program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prints the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// Which configuration is printed.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum ConfigCommand {
    /// Every key with its default
    Default,
    /// What is in force: files and flags
    Dump,
}

impl Settings {
    /// Puts the flags over what the files say.
    pub fn apply(&self, config: &mut Config) {
        if let Some(root) = &self.root {
            config.root.clone_from(root);
        }
        if let Some(state) = &self.state {
            config.state.clone_from(state);
        }
        if !self.listen.is_empty() {
            config.listen.clone_from(&self.listen);
        }
        if let Some(level) = &self.log_level {
            config.log.level.clone_from(level);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_files() {
        let args = Args::try_parse_from([
            "joeyd",
            "--root",
            "/r",
            "--listen",
            "unix:///a",
            "--listen",
            "unix:///b",
            "--log-level",
            "debug",
        ])
        .unwrap();
        let mut config = Config::default();
        args.settings.apply(&mut config);
        assert_eq!(config.root, PathBuf::from("/r"));
        assert_eq!(config.state, PathBuf::from("/run/joey"));
        assert_eq!(config.listen, ["unix:///a", "unix:///b"]);
        assert_eq!(config.log.level, "debug");
    }

    #[test]
    fn the_configuration_can_be_printed_with_flags_after_it() {
        let args = Args::try_parse_from(["joeyd", "config", "dump", "--state", "/s"]).unwrap();
        assert!(matches!(
            args.command,
            Some(Command::Config(ConfigCommand::Dump))
        ));
        assert_eq!(args.settings.state, Some(PathBuf::from("/s")));
        let wrong = Args::try_parse_from(["joeyd", "--no-such-flag"]);
        assert!(wrong.unwrap_err().to_string().contains("--no-such-flag"));
    }
}
