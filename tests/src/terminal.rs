//! Programs as people use them: by pipes, or in a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::Winsize;

use crate::Stand;

/// Starts it with its standard streams piped.
#[must_use]
pub fn piped(command: &mut Command) -> Child {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Reads until `wanted` has come.
pub fn read_until(from: &mut impl Read, wanted: &[u8]) -> Vec<u8> {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(wanted) {
        let count = from.read(&mut byte).unwrap();
        assert_eq!(count, 1, "ended after {:?}", String::from_utf8_lossy(&seen));
        seen.push(byte[0]);
    }
    seen
}

/// Sends it a signal.
pub fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// A terminal for joey: what people type into and look at.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    child: Child,
}

impl Terminal {
    /// Runs joey in a terminal of 111 by 33.
    #[must_use]
    pub fn run(stand: &Stand, arguments: &[&str]) -> Self {
        Self::start(&mut stand.joey_command(arguments))
    }

    /// Runs a command in one.
    pub fn start(command: &mut Command) -> Self {
        let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
        let master = rustix::pty::openpt(flags).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let path = rustix::pty::ptsname(&master, Vec::new()).unwrap();
        let size = Winsize {
            ws_row: 33,
            ws_col: 111,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&master, size).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
        let slave: OwnedFd = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).unwrap();
        let stdio = || Stdio::from(slave.try_clone().unwrap());
        let child = command
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            // Its signals are not the test's.
            .process_group(0)
            .spawn()
            .unwrap();
        // The command keeps its copies of the descriptors.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self {
            master: master.into(),
            child,
        }
    }

    /// The terminal's other side.
    #[must_use]
    pub fn master(&self) -> &File {
        &self.master
    }

    /// Sends joey a signal.
    pub fn signal(&self, sent: Signal) {
        signal(&self.child, sent);
    }

    /// Reads until `wanted` is shown.
    pub fn see(&mut self, wanted: &str) -> String {
        let seen = read_until(&mut self.master, wanted.as_bytes());
        String::from_utf8(seen).unwrap()
    }

    /// Types.
    pub fn type_in(&mut self, text: &[u8]) {
        self.master.write_all(text).unwrap();
    }

    /// What is still to be seen, and how joey ended.
    #[must_use]
    pub fn ended(&mut self) -> (String, ExitStatus) {
        let mut rest = Vec::new();
        // EIO: the other side is closed.
        drop(self.master.read_to_end(&mut rest));
        let status = self.child.wait().unwrap();
        (String::from_utf8(rest).unwrap(), status)
    }

    /// The same with joey's exit code.
    #[must_use]
    pub fn end(mut self) -> (String, i32) {
        let (rest, status) = self.ended();
        (rest, status.code().unwrap())
    }
}
