//! The command line.

use clap::{Args as ClapArgs, Parser, Subcommand};
use clap_complete::Shell;

use crate::limits::LimitArgs;
use crate::parse;

/// Runs and manages containers on this node.
#[derive(Debug, Parser)]
#[command(name = "joey", version, disable_help_subcommand = true)]
pub struct Args {
    /// Socket of the daemon
    #[arg(
        short = 'H',
        long,
        global = true,
        env = "JOEY_HOST",
        value_name = "unix://PATH",
        default_value = "unix:///run/joey/joey.sock"
    )]
    pub host: String,
    #[command(subcommand)]
    pub command: Command,
}

/// What is done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs a command in a new container
    Run(Box<Run>),
    /// Makes a container without starting it
    Create(Box<Create>),
    /// Starts containers that were created or have ended
    Start(Start),
    /// Lists containers
    Ps(Ps),
    /// Runs a command in a running container
    Exec(Exec),
    /// Shows what a container wrote
    Logs(Logs),
    /// Shows a running container's output and passes on input, until ctrl-p ctrl-q
    Attach(Attach),
    /// Stops running containers
    Stop(Stop),
    /// Stops containers and starts them again
    Restart(Stop),
    /// Sends containers a signal
    Kill(Kill),
    /// Removes containers
    Rm(Rm),
    /// Changes limits and environment of containers
    Update(Box<Update>),
    /// Waits for containers to end and prints their exit codes
    Wait(Containers),
    /// Shows everything about containers and images, as JSON
    Inspect(Inspect),
    /// Lists images
    Images(Images),
    /// Fetches an image
    Pull(Pull),
    /// Removes images
    Rmi(Rmi),
    /// Keeps credentials for a registry
    Login(Login),
    /// Forgets the credentials for a registry
    Logout(Logout),
    /// Shows the versions of joey and the daemon
    Version,
    /// Shows the daemon's state and what this node can do
    Info,
    /// Prints a shell's completion script
    Completion {
        /// The shell
        shell: Shell,
    },
}

/// What a container is made from.
#[derive(Debug, Default, ClapArgs)]
pub struct ContainerArgs {
    /// Name; one is made up otherwise
    #[arg(long)]
    pub name: Option<String>,
    /// Keep standard input open
    #[arg(short, long)]
    pub interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Remove it when it has ended
    #[arg(long)]
    pub rm: bool,
    /// Environment variable; without a value, the one of this shell
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub env: Vec<String>,
    /// File of KEY=VALUE lines
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<std::path::PathBuf>,
    /// Working folder
    #[arg(short, long, value_name = "FOLDER")]
    pub workdir: Option<String>,
    /// User and group, by name or id
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Host name [default: the container's name]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Program to run instead of the image's
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// Folder or file of the host; a folder that is not there is made
    #[arg(short, long, value_name = "SOURCE:TARGET[:ro]", value_parser = parse::volume)]
    pub volume: Vec<parse::Volume>,
    /// Port to offer on the host
    #[arg(short, long, value_name = "[IP:]HOST:CONTAINER[/PROTO]", value_parser = parse::port)]
    pub publish: Vec<parse::Port>,
    /// Its network: one of its own, the host's, or nothing but a loopback interface
    #[arg(long, visible_alias = "network", value_name = "NETWORK", default_value = "bridge", value_parser = ["bridge", "host", "none"])]
    pub net: String,
    /// Of its log: max-size (of a file, -1: unlimited) and max-file (how many) [default: joeyd's]
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::log_option)]
    pub log_opt: Vec<parse::LogOption>,
    /// Signal that asks it to end, by name or number [default: the image's, else TERM]
    #[arg(long, value_name = "SIGNAL", value_parser = parse::signal)]
    pub stop_signal: Option<u32>,
    /// Every capability and device, nothing hidden
    #[arg(long)]
    pub privileged: bool,
    /// Make the root file system read-only
    #[arg(long)]
    pub read_only: bool,
    /// Capability to add, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_add: Vec<String>,
    /// Capability to take away, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_drop: Vec<String>,
    /// Label
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse::label)]
    pub label: Vec<(String, String)>,
    #[command(flatten)]
    pub limits: LimitArgs,
    #[command(flatten)]
    pub credentials: Credentials,
}

/// For the registry of an image that is fetched.
#[derive(Debug, Default, ClapArgs)]
pub struct Credentials {
    /// Credentials for the registry instead of those of joey login; without a password it is asked for
    #[arg(long, value_name = "USER[:PASSWORD]")]
    pub creds: Option<String>,
}

/// `joey run`.
#[derive(Debug, ClapArgs)]
pub struct Run {
    /// Run in the background and print the id
    #[arg(short, long)]
    pub detach: bool,
    #[command(flatten)]
    pub container: ContainerArgs,
    /// Image; it is fetched when it is not there
    pub image: String,
    /// Command and arguments instead of the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// `joey create`.
#[derive(Debug, ClapArgs)]
pub struct Create {
    #[command(flatten)]
    pub container: ContainerArgs,
    /// Image; it is fetched when it is not there
    pub image: String,
    /// Command and arguments instead of the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// `joey start`.
#[derive(Debug, ClapArgs)]
pub struct Start {
    /// Show its output, forward signals and exit with its code
    #[arg(short, long)]
    pub attach: bool,
    /// Pass on standard input too
    #[arg(short, long)]
    pub interactive: bool,
    /// Names or ids
    #[arg(required = true)]
    pub containers: Vec<String>,
}

/// `joey ps`.
#[derive(Debug, ClapArgs)]
pub struct Ps {
    /// Those that do not run too
    #[arg(short, long)]
    pub all: bool,
    /// Only those with id, name, label or status (created, running, exited)
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse::filter)]
    pub filter: Vec<parse::Filter>,
    /// Ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// Whole ids
    #[arg(long)]
    pub no_trunc: bool,
}

/// `joey exec`.
#[derive(Debug, ClapArgs)]
pub struct Exec {
    /// Pass on standard input
    #[arg(short, long)]
    pub interactive: bool,
    /// With a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Environment variable; without a value, the one of this shell
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub env: Vec<String>,
    /// Working folder
    #[arg(short, long, value_name = "FOLDER")]
    pub workdir: Option<String>,
    /// User and group, by name or id
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Name or id
    pub container: String,
    /// Command and arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// `joey logs`.
#[derive(Debug, ClapArgs)]
pub struct Logs {
    /// Go on until the container ends
    #[arg(short, long)]
    pub follow: bool,
    /// Lines from the end, 100000 at most, or all
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all", value_parser = parse::tail)]
    pub tail: i64,
    /// From this time on: 10m ago, seconds since 1970, or RFC 3339 (without a zone: UTC)
    #[arg(long, value_name = "TIME", value_parser = parse::time)]
    pub since: Option<i64>,
    /// Up to this time
    #[arg(long, value_name = "TIME", value_parser = parse::time)]
    pub until: Option<i64>,
    /// With the time of each line
    #[arg(short, long)]
    pub timestamps: bool,
    /// Name or id
    pub container: String,
}

/// `joey attach`.
#[derive(Debug, ClapArgs)]
pub struct Attach {
    /// Pass on no input
    #[arg(long)]
    pub no_stdin: bool,
    /// Name or id
    pub container: String,
}

/// `joey kill`.
#[derive(Debug, ClapArgs)]
pub struct Kill {
    /// By name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = parse::signal)]
    pub signal: u32,
    /// Names or ids
    #[arg(required = true)]
    pub containers: Vec<String>,
}

/// `joey inspect`.
#[derive(Debug, ClapArgs)]
pub struct Inspect {
    /// What the names are of [default: a container, else an image]
    #[arg(long = "type", value_name = "TYPE", value_parser = ["container", "image"])]
    pub kind: Option<String>,
    /// Names or ids
    #[arg(required = true)]
    pub names: Vec<String>,
}

/// `joey login`.
#[derive(Debug, ClapArgs)]
pub struct Login {
    /// User name; asked for otherwise
    #[arg(short, long, value_name = "USER")]
    pub username: Option<String>,
    /// Password, which others can see in the list of processes; asked for otherwise
    #[arg(
        short,
        long,
        value_name = "PASSWORD",
        conflicts_with = "password_stdin"
    )]
    pub password: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    pub password_stdin: bool,
    /// Host and port
    #[arg(default_value = crate::auth::DEFAULT_REGISTRY)]
    pub registry: String,
}

/// `joey logout`.
#[derive(Debug, ClapArgs)]
pub struct Logout {
    /// Host and port
    #[arg(default_value = crate::auth::DEFAULT_REGISTRY)]
    pub registry: String,
}

/// `joey stop` and `joey restart`.
#[derive(Debug, ClapArgs)]
pub struct Stop {
    /// Seconds before it is killed
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
    pub time: u32,
    /// Names or ids
    #[arg(required = true)]
    pub containers: Vec<String>,
}

/// `joey update`.
#[derive(Debug, ClapArgs)]
pub struct Update {
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Environment variable of what is executed from now on; without a value, the one of this shell
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub env: Vec<String>,
    /// Names or ids
    #[arg(required = true)]
    pub containers: Vec<String>,
}

/// `joey rm`.
#[derive(Debug, ClapArgs)]
pub struct Rm {
    /// Kill those that run
    #[arg(short, long)]
    pub force: bool,
    /// Names or ids
    #[arg(required = true)]
    pub containers: Vec<String>,
}

/// Some containers.
#[derive(Debug, ClapArgs)]
pub struct Containers {
    /// Names or ids
    #[arg(required = true)]
    pub containers: Vec<String>,
}

/// `joey images`.
#[derive(Debug, ClapArgs)]
pub struct Images {
    /// Ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// With digests
    #[arg(long)]
    pub digest: bool,
    /// Whole ids
    #[arg(long)]
    pub no_trunc: bool,
}

/// `joey pull`.
#[derive(Debug, ClapArgs)]
pub struct Pull {
    /// Print the id only
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub credentials: Credentials,
    /// Such as registry.example.com/team/app:1.2
    pub image: String,
}

/// `joey rmi`.
#[derive(Debug, ClapArgs)]
pub struct Rmi {
    /// Even when a container was made from it
    #[arg(short, long)]
    pub force: bool,
    /// Names or ids
    #[arg(required = true)]
    pub images: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn flags_after_the_image_belong_to_the_command() {
        let args = Args::try_parse_from([
            "joey", "run", "-it", "--rm", "-p", "8080:80", "-m", "64m", "alpine", "sh", "-c",
            "ls --all",
        ])
        .unwrap();
        let Command::Run(run) = args.command else {
            panic!("not run")
        };
        assert!(run.container.interactive && run.container.tty && run.container.rm && !run.detach);
        assert_eq!(run.container.limits.memory, Some(64 << 20));
        assert_eq!(run.container.publish.len(), 1);
        assert_eq!(run.image, "alpine");
        assert_eq!(run.command, ["sh", "-c", "ls --all"]);
    }

    #[test]
    fn wrong_flags_are_refused() {
        for line in [
            &["joey", "run"][..],
            &["joey", "run", "--net", "x", "a"],
            &["joey", "run", "-p", "x", "a"],
            &["joey", "run", "-m", "1x", "a"],
            &["joey", "run", "--log-opt", "max-size", "a"],
            &["joey", "kill", "-s", "NOSUCH", "a"],
            &["joey", "run", "--stop-signal", "32", "a"],
            &["joey", "ps", "-f", "colour=red"],
            &["joey", "login", "--password-stdin"],
            &["joey", "exec", "a"],
            &["joey", "logs", "--tail", "-3", "a"],
            &["joey", "stop"],
            &["joey", "update", "-m", "1x", "a"],
            &["joey", "update", "-m", "64m"],
            &["joey", "update", "--device-read-bps", "1m", "a"],
        ] {
            assert!(Args::try_parse_from(line).is_err(), "{line:?}");
        }
    }
}
