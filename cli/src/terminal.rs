//! The terminal joey runs in.

use std::io::{self, IsTerminal};

use joey_proto::api::Size;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::error::CliError;

/// Ctrl-P.
const FIRST_KEY: u8 = 0x10;
/// Ctrl-Q.
const SECOND_KEY: u8 = 0x11;

/// Passes every key on as it is typed; the former mode comes back on drop.
#[derive(Debug)]
pub struct RawMode {
    _former: Restore,
}

/// A mode of the terminal that comes back on drop.
#[derive(Debug)]
struct Restore(Termios);

impl RawMode {
    /// Sets the mode.
    ///
    /// # Errors
    /// When standard input is no terminal.
    pub fn enter() -> Result<Self, CliError> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Err(CliError::NoTerminal);
        }
        let failed = |error: rustix::io::Errno| CliError::Io("set up the terminal", error.into());
        let former = tcgetattr(&stdin).map_err(failed)?;
        let mut raw = former.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Self {
            _former: Restore(former),
        })
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        // The terminal may be gone; then there is nothing to restore.
        tcsetattr(io::stdin(), OptionalActions::Now, &self.0).unwrap_or_default();
    }
}

/// Asks for a line.
///
/// # Errors
/// When standard input is no terminal, or at its end.
pub fn ask(question: &str) -> Result<String, CliError> {
    if !io::stdin().is_terminal() {
        return Err(CliError::Usage(
            "standard input is no terminal to ask on: use --username and --password-stdin",
        ));
    }
    eprint!("{question}");
    let mut line = String::new();
    let read = io::stdin().read_line(&mut line);
    read.map_err(|error| CliError::Io("read the answer", error))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks for a line that is not shown.
///
/// # Errors
/// As [`ask`]'s.
pub fn ask_secret(question: &str) -> Result<String, CliError> {
    let failed = |error: rustix::io::Errno| CliError::Io("set up the terminal", error.into());
    let hidden = if io::stdin().is_terminal() {
        let former = tcgetattr(io::stdin()).map_err(failed)?;
        let mut silent = former.clone();
        silent.local_modes -= LocalModes::ECHO;
        tcsetattr(io::stdin(), OptionalActions::Now, &silent).map_err(failed)?;
        Some(Restore(former))
    } else {
        None
    };
    let answer = ask(question);
    if hidden.is_some() {
        eprintln!();
    }
    answer
}

/// The terminal's size; None without a terminal.
pub fn size() -> Option<Size> {
    let size = tcgetwinsize(io::stdout())
        .or_else(|_| tcgetwinsize(io::stdin()))
        .ok()?;
    Some(Size {
        columns: size.ws_col.into(),
        rows: size.ws_row.into(),
    })
}

/// Finds ctrl-p ctrl-q in what is typed.
#[derive(Debug, Default)]
pub struct DetachKeys {
    half: bool,
}

impl DetachKeys {
    /// What is passed on, and whether the keys were typed.
    pub fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len() + 1);
        for byte in typed {
            match (std::mem::take(&mut self.half), *byte) {
                (true, SECOND_KEY) => return (passed, true),
                (true, FIRST_KEY) => {
                    passed.push(FIRST_KEY);
                    self.half = true;
                }
                (false, FIRST_KEY) => self.half = true,
                (half, byte) => {
                    if half {
                        passed.push(FIRST_KEY);
                    }
                    passed.push(byte);
                }
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_across_reads() {
        let mut keys = DetachKeys::default();
        assert_eq!(keys.filter(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.filter(b"c\x10\x10"), (b"\x10c\x10".to_vec(), false));
        assert_eq!(keys.filter(b"\x11z"), (Vec::new(), true));
    }
}
