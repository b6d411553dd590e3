//! Signal names.

use crate::error::{Error, Result};

const SIGTERM: u32 = 15;
const SIGRTMIN: u32 = 34;
const SIGRTMAX: u32 = 64;

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The number of `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`, `SIGRTMAX-1`; SIGTERM for an empty name.
///
/// # Errors
/// [`Error::Invalid`] for a signal that Linux does not have.
pub(crate) fn signal_number(name: &str) -> Result<u32> {
    if name.is_empty() {
        return Ok(SIGTERM);
    }
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = short
        .parse()
        .ok()
        .or_else(|| realtime(short))
        .or_else(|| alias(short))
        .or_else(|| {
            (1..)
                .zip(NAMES)
                .find(|(_, known)| *known == short)
                .map(|(number, _)| number)
        });
    match number {
        Some(number @ 1..=SIGRTMAX) => Ok(number),
        _ => Err(Error::invalid(format!("unknown signal {name:?}"))),
    }
}

fn realtime(name: &str) -> Option<u32> {
    let (base, offset) = name.split_at_checked(5)?;
    let distance = |sign: char| -> Option<u32> {
        if offset.is_empty() {
            Some(0)
        } else {
            offset.strip_prefix(sign)?.parse().ok()
        }
    };
    let number = match base {
        "RTMIN" => SIGRTMIN.checked_add(distance('+')?)?,
        "RTMAX" => SIGRTMAX.checked_sub(distance('-')?)?,
        _ => return None,
    };
    (SIGRTMIN..=SIGRTMAX).contains(&number).then_some(number)
}

fn alias(name: &str) -> Option<u32> {
    match name {
        "IOT" => Some(6),
        "CLD" => Some(17),
        "POLL" => Some(29),
        // CRI's enum writes SIGRTMIN+3 as SIGRTMINPLUS3 and SIGRTMAX-1 as SIGRTMAXMINUS1.
        _ => {
            if let Some(offset) = name.strip_prefix("RTMINPLUS") {
                Some(SIGRTMIN + offset.parse::<u32>().ok()?)
            } else {
                SIGRTMAX.checked_sub(name.strip_prefix("RTMAXMINUS")?.parse().ok()?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_realtime() {
        for (name, number) in [
            ("", 15),
            ("SIGTERM", 15),
            ("kill", 9),
            ("SIGSYS", 31),
            ("10", 10),
            ("SIGRTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("SIGRTMAX", 64),
            ("SIGRTMINPLUS3", 37),
            ("SIGRTMAXMINUS14", 50),
        ] {
            assert_eq!(signal_number(name).unwrap(), number, "{name}");
        }
        for name in ["SIGFOO", "0", "65", "RTMIN+31", "-1", "RTMAX-99"] {
            assert!(signal_number(name).is_err(), "{name}");
        }
    }
}
