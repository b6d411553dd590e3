//! What `/proc/PID/stat` tells of a child, also of one that has ended and is not reaped yet.

use std::fs;

/// `PF_FORKNOEXEC` of the kernel: forked, and no program executed since.
const FORKED_ONLY: u64 = 0x40;

/// A part of a process's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Who is told of its end.
    pub parent: i32,
    /// It executes, or executed, a program of its own; until then it is a copy of the shim.
    pub executed: bool,
    /// When it started, in clock ticks after the boot.
    pub start_ticks: u64,
}

/// None for a process that is gone.
pub fn of(pid: i32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(stat: &str) -> Option<Stat> {
    // The name, in parentheses, may hold anything. The state is field 3.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        executed: number(9)? & FORKED_ONLY == 0,
        start_ticks: number(22)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys;

    #[test]
    fn a_fork_is_told_from_a_program() {
        let own = of(std::process::id().cast_signed()).unwrap();
        assert!(own.executed && own.start_ticks > 0 && own.parent > 0);
        // SAFETY: the child does nothing but end.
        let child = unsafe {
            match libc::fork() {
                0 => libc::_exit(0),
                pid => pid,
            }
        };
        while sys::ended_child().is_none() {
            std::thread::yield_now();
        }
        let stat = of(child).unwrap();
        assert!(!stat.executed, "as a zombie");
        assert_eq!(stat.parent, std::process::id().cast_signed());
        let pid = rustix::process::Pid::from_raw(child);
        rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap();
        assert_eq!(of(child), None);
    }

    #[test]
    fn a_name_may_look_like_fields() {
        let fields: Vec<String> = (4..=30).map(|field| field.to_string()).collect();
        let stat = parse(&format!("7 (a) S 1 (b) Z {}", fields.join(" "))).unwrap();
        assert_eq!(stat.start_ticks, 22);
    }
}
