//! The `joey` command against a stand's daemon.

use std::process::{Command, Output};

use crate::{Stand, binary};

impl Stand {
    /// The command, to be run.
    #[must_use]
    pub fn joey_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("joey"));
        command
            .arg("-H")
            .arg(format!("unix://{}", self.daemon.socket().display()))
            .args(arguments);
        command
    }

    /// Runs it to its end.
    #[must_use]
    pub fn joey(&self, arguments: &[&str]) -> Output {
        self.joey_command(arguments).output().unwrap()
    }

    /// Standard output of a command that succeeds.
    pub fn out(&self, arguments: &[&str]) -> String {
        let ended = self.joey(arguments);
        assert!(ended.status.success(), "{arguments:?}: {ended:?}");
        String::from_utf8(ended.stdout).unwrap()
    }

    /// Exit code and standard error of a command.
    pub fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let ended = self.joey(arguments);
        let error = String::from_utf8(ended.stderr).unwrap();
        (ended.status.code().unwrap(), error)
    }
}
