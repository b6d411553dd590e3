//! Stop signals: CRI's enumeration and the names that images and the kernel use.

use joey_proto::cri::Signal;

use crate::status::{Result, invalid};

/// `SIGRTMIN` as glibc and musl give it to programs.
const RTMIN: i32 = 34;
/// The last signal.
const RTMAX: i32 = 64;

/// The name of a stop signal, `SIGRTMIN+3` for CRI's `SIGRTMINPLUS3`; None: the image's.
pub(crate) fn to_name(signal: i32) -> Result<Option<String>> {
    match Signal::try_from(signal) {
        Ok(Signal::RuntimeDefault) => Ok(None),
        Ok(signal) => {
            let name = signal.as_str_name();
            Ok(Some(
                name.replacen("PLUS", "+", 1)
                    .replacen("MAXMINUS", "MAX-", 1),
            ))
        }
        Err(_) => Err(invalid(format!(
            "stop_signal has the unknown value {signal}"
        ))),
    }
}

/// The signal of a name as images write it: `SIGTERM`, `term`, `15`, `SIGRTMIN+3`.
pub(crate) fn from_name(name: &str) -> Signal {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Ok(number) = bare.parse::<i32>() {
        return from_number(number);
    }
    let spelled = format!(
        "SIG{}",
        bare.replacen("RTMIN+", "RTMINPLUS", 1)
            .replacen("RTMAX-", "RTMAXMINUS", 1)
    );
    Signal::from_str_name(&spelled).unwrap_or(Signal::RuntimeDefault)
}

/// The signals by their numbers on every architecture Joey runs on (`asm-generic/signal.h`).
const NUMBERED: [Signal; 31] = [
    Signal::Sighup,
    Signal::Sigint,
    Signal::Sigquit,
    Signal::Sigill,
    Signal::Sigtrap,
    Signal::Sigabrt,
    Signal::Sigbus,
    Signal::Sigfpe,
    Signal::Sigkill,
    Signal::Sigusr1,
    Signal::Sigsegv,
    Signal::Sigusr2,
    Signal::Sigpipe,
    Signal::Sigalrm,
    Signal::Sigterm,
    Signal::Sigstkflt,
    Signal::Sigchld,
    Signal::Sigcont,
    Signal::Sigstop,
    Signal::Sigtstp,
    Signal::Sigttin,
    Signal::Sigttou,
    Signal::Sigurg,
    Signal::Sigxcpu,
    Signal::Sigxfsz,
    Signal::Sigvtalrm,
    Signal::Sigprof,
    Signal::Sigwinch,
    Signal::Sigio,
    Signal::Sigpwr,
    Signal::Sigsys,
];

fn from_number(number: i32) -> Signal {
    if (RTMIN..=RTMAX).contains(&number) {
        let first = Signal::Sigrtmin as i32;
        // CRI counts up to SIGRTMIN+15 and then down from SIGRTMAX-14, as the numbers do.
        return Signal::try_from(first + number - RTMIN).unwrap_or(Signal::RuntimeDefault);
    }
    usize::try_from(number - 1)
        .ok()
        .and_then(|index| NUMBERED.get(index).copied())
        .unwrap_or(Signal::RuntimeDefault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_65_signals_have_a_name_that_leads_back() {
        assert_eq!(to_name(0).unwrap(), None);
        for number in 1..=65 {
            let signal = Signal::try_from(number).unwrap();
            let name = to_name(number).unwrap().unwrap();
            assert_eq!(from_name(&name), signal, "{name}");
        }
        to_name(66).unwrap_err();
        to_name(-1).unwrap_err();
    }

    #[test]
    fn names_are_those_of_the_kernel() {
        let name = |signal: Signal| to_name(signal as i32).unwrap().unwrap();
        assert_eq!(name(Signal::Sigterm), "SIGTERM");
        assert_eq!(name(Signal::Sigrtmin), "SIGRTMIN");
        assert_eq!(name(Signal::Sigrtminplus3), "SIGRTMIN+3");
        assert_eq!(name(Signal::Sigrtmaxminus14), "SIGRTMAX-14");
        assert_eq!(name(Signal::Sigrtmax), "SIGRTMAX");
    }

    #[test]
    fn images_write_signals_in_many_ways() {
        for (text, signal) in [
            ("SIGQUIT", Signal::Sigquit),
            ("quit", Signal::Sigquit),
            ("3", Signal::Sigquit),
            ("9", Signal::Sigkill),
            ("15", Signal::Sigterm),
            ("17", Signal::Sigchld),
            ("31", Signal::Sigsys),
            ("34", Signal::Sigrtmin),
            ("37", Signal::Sigrtminplus3),
            ("50", Signal::Sigrtmaxminus14),
            ("64", Signal::Sigrtmax),
            ("SIGRTMIN+3", Signal::Sigrtminplus3),
            ("", Signal::RuntimeDefault),
            ("0", Signal::RuntimeDefault),
            ("65", Signal::RuntimeDefault),
            ("SIGNONE", Signal::RuntimeDefault),
        ] {
            assert_eq!(from_name(text), signal, "{text}");
        }
    }
}
