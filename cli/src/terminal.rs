//! The terminal joey runs in.

use std::io::{self, IsTerminal};

use joey_proto::api::Size;
use rustix::io::Errno;
use rustix::process::{Signal, kill_current_process_group};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};

use crate::error::CliError;
use crate::stdio::{self, Target};

/// Ctrl-P.
const FIRST_KEY: u8 = 0x10;
/// Ctrl-Q.
const SECOND_KEY: u8 = 0x11;

/// Bytes of a line that a terminal lets edit.
const MAX_LINE: usize = 4096;

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
        let failed = |error: Errno| CliError::Io("set up the terminal", error.into());
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

/// Asks for a line; `what` is needed. Empty at the input's end.
///
/// # Errors
/// When standard input is no terminal.
pub fn ask(what: &'static str) -> Result<String, CliError> {
    begin_question(what)?;
    text(read_line()?)
}

/// Asks for a line that is not shown.
///
/// # Errors
/// As [`ask`]'s; [`CliError::Cancelled`] where the user gave up.
pub fn ask_secret(what: &'static str) -> Result<String, CliError> {
    let silent = Silence::begin(what)?;
    begin_question(what)?;
    let line = read_line();
    let pressed = line.as_ref().ok().and_then(|line| silent.signal_of(line));
    drop(silent);
    stdio::tell("");
    if let Some(signal) = pressed {
        // As the terminal would have sent it; where it is ignored joey ends by itself.
        kill_current_process_group(signal).unwrap_or_default();
        return Err(CliError::Cancelled);
    }
    text(line?)
}

fn begin_question(what: &'static str) -> Result<(), CliError> {
    if !io::stdin().is_terminal() {
        return Err(CliError::NoAnswer(what));
    }
    // Where nobody sees it, the answer is waited for all the same.
    stdio::write(Target::Err, format!("{what}: ").as_bytes()).unwrap_or_default();
    Ok(())
}

fn text(line: Vec<u8>) -> Result<String, CliError> {
    let line = String::from_utf8(line)
        .map_err(|error| CliError::Io("read the answer", io::Error::other(error)))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// What is typed is not shown. The keys that would end joey end the line: the former mode must come
/// back first.
struct Silence {
    interrupt: u8,
    quit: u8,
    _former: Restore,
}

impl Silence {
    fn begin(what: &'static str) -> Result<Self, CliError> {
        if !io::stdin().is_terminal() {
            return Err(CliError::NoAnswer(what));
        }
        let failed = |error: Errno| CliError::Io("set up the terminal", error.into());
        let former = tcgetattr(io::stdin()).map_err(failed)?;
        let key = |index| former.special_codes[index];
        let (interrupt, quit) = (key(SpecialCodeIndex::VINTR), key(SpecialCodeIndex::VQUIT));
        let mut silent = former.clone();
        silent.local_modes -= LocalModes::ECHO | LocalModes::ISIG;
        silent.special_codes[SpecialCodeIndex::VEOL] = interrupt;
        silent.special_codes[SpecialCodeIndex::VEOL2] = quit;
        tcsetattr(io::stdin(), OptionalActions::Now, &silent).map_err(failed)?;
        Ok(Self {
            interrupt,
            quit,
            _former: Restore(former),
        })
    }

    fn signal_of(&self, line: &[u8]) -> Option<Signal> {
        // Zero: the terminal has no such key.
        let last = line.last().copied().filter(|key| *key != 0)?;
        match last {
            key if key == self.interrupt => Some(Signal::INT),
            key if key == self.quit => Some(Signal::QUIT),
            _ => None,
        }
    }
}

/// One line as the terminal hands it over, with what ended it.
fn read_line() -> Result<Vec<u8>, CliError> {
    let mut line = vec![0; MAX_LINE];
    let read = stdio::read(&mut line);
    line.truncate(read.map_err(|error| CliError::Io("read the answer", error))?);
    Ok(line)
}

/// Warns of a password among the arguments; `instead` is what to use.
pub fn warn_of_password(instead: &str) {
    stdio::tell(&format!(
        "joey: WARNING! A password on the command line can be seen by others; use {instead} instead"
    ));
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
