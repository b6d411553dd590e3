//! One file per command.

mod attach;
mod completion;
mod container;
mod create;
mod each;
mod exec;
mod images;
mod info;
mod inspect;
mod kill;
mod login;
mod logs;
mod ps;
mod pull;
mod restart;
mod rm;
mod rmi;
mod run;
mod start;
mod stop;
mod update;
mod version;
mod wait;

use std::io::ErrorKind;
use std::process::ExitCode;

use crate::args::{Args, Command};
use crate::client::{self, Client};
use crate::error::CliError;
use crate::stdio::{self, Target};

/// Runs a command; returns the code joey exits with.
pub async fn run(args: Args) -> ExitCode {
    match args.command {
        Command::Completion { shell } => return report(completion::run(shell)),
        Command::Logout(args) => return report(login::logout(&args)),
        Command::Version => return report(version::run(&args.host).await),
        _ => {}
    }
    let runs_a_program = matches!(
        args.command,
        Command::Run(_) | Command::Exec(_) | Command::Create(_)
    );
    let done = async {
        let client = client::connect(&args.host).await?;
        dispatch(&client, args.command).await
    };
    match done.await {
        Ok(code) => code,
        Err(error) => {
            let code = if runs_a_program {
                error.run_exit_code()
            } else {
                error.exit_code()
            };
            show(&error);
            code
        }
    }
}

async fn dispatch(client: &Client, command: Command) -> Result<ExitCode, CliError> {
    match command {
        Command::Run(args) => return run::run(client, *args).await,
        Command::Exec(args) => return exec::run(client, args).await,
        Command::Start(args) => return start::run(client, args).await,
        Command::Attach(args) => return attach::run(client, args).await,
        Command::Create(args) => create::run(client, *args).await,
        Command::Ps(args) => ps::run(client, &args).await,
        Command::Logs(args) => logs::run(client, args).await,
        Command::Stop(args) => stop::run(client, args).await,
        Command::Restart(args) => restart::run(client, args).await,
        Command::Kill(args) => kill::run(client, args).await,
        Command::Inspect(args) => inspect::run(client, args).await,
        Command::Login(args) => login::login(client, args).await,
        Command::Rm(args) => rm::run(client, args).await,
        Command::Update(args) => update::run(client, *args).await,
        Command::Wait(args) => wait::run(client, args).await,
        Command::Images(args) => images::run(client, &args).await,
        Command::Pull(args) => pull::run(client, &args).await,
        Command::Rmi(args) => rmi::run(client, args).await,
        // These ask no daemon, or ask it last.
        Command::Version | Command::Logout(_) | Command::Completion { .. } => Ok(()),
        Command::Info => info::run(client).await,
    }?;
    Ok(ExitCode::SUCCESS)
}

fn report(done: Result<(), CliError>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            show(&error);
            error.exit_code()
        }
    }
}

fn show(error: &CliError) {
    if !matches!(error, CliError::Reported) {
        stdio::tell(&format!("joey: {error}"));
    }
}

/// Prints; a reader that has had enough is no error.
fn print(text: &str) -> Result<(), CliError> {
    match stdio::write(Target::Out, text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(CliError::Io("print", error)),
        _ => Ok(()),
    }
}
