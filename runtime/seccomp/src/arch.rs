//! Architectures and their system call numbers.

use std::collections::HashMap;
use std::sync::LazyLock;

/// Numbers from the kernel's headers, a line per name.
const TABLE: &str = include_str!("syscalls.txt");

/// Set in every x32 system call number.
pub(crate) const X32_BIT: u32 = 0x4000_0000;

/// Numbers from here on are not in the kernel's table: arm keeps its private calls there.
pub(crate) const PRIVATE: u32 = 0x000f_0000;

/// An architecture a program can decide about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Arch {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
}

impl Arch {
    /// The one this program was built for.
    pub(crate) const fn native() -> Option<Self> {
        if cfg!(target_arch = "x86_64") {
            Some(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Aarch64)
        } else {
            None
        }
    }

    /// As profiles name it (`SCMP_ARCH_X86_64`); None for one that this crate does not know.
    pub(crate) fn from_profile(name: &str) -> Option<Self> {
        Some(match name {
            "SCMP_ARCH_X86_64" => Self::X86_64,
            "SCMP_ARCH_X86" => Self::X86,
            "SCMP_ARCH_X32" => Self::X32,
            "SCMP_ARCH_AARCH64" => Self::Aarch64,
            "SCMP_ARCH_ARM" => Self::Arm,
            _ => return None,
        })
    }

    /// As `includes.arches` names it: Go's name.
    pub(crate) fn go_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::X86 => "x86",
            Self::X32 => "x32",
            Self::Aarch64 => "arm64",
            Self::Arm => "arm",
        }
    }

    /// `AUDIT_ARCH_*`; x32 shares that of x86-64.
    pub(crate) fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Arguments are 32 bits wide.
    pub(crate) fn is_32_bit(self) -> bool {
        matches!(self, Self::X86 | Self::Arm)
    }

    /// The number of a system call, x32's with its bit.
    pub(crate) fn number(self, name: &str) -> Option<u32> {
        let numbers = NUMBERS.get(name)?;
        let number = numbers[self.column()]?;
        Some(match self {
            Self::X32 => number | X32_BIT,
            _ => number,
        })
    }

    fn column(self) -> usize {
        match self {
            Self::X86_64 => 0,
            Self::X86 => 1,
            Self::X32 => 2,
            Self::Aarch64 => 3,
            Self::Arm => 4,
        }
    }
}

type Numbers = [Option<u32>; 5];

static NUMBERS: LazyLock<HashMap<&'static str, Numbers>> = LazyLock::new(|| {
    TABLE
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let name = fields.next()?;
            let mut numbers = Numbers::default();
            for (slot, field) in numbers.iter_mut().zip(fields) {
                *slot = field.parse().ok();
            }
            Some((name, numbers))
        })
        .collect()
});

/// i386 has one system call for all of sockets and one for all of System V's IPC; their first
/// argument says which. A rule without conditions is about that way too.
pub(crate) fn multiplexed(name: &str) -> Option<(&'static str, u64)> {
    const SOCKETCALL: [&str; 20] = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    const IPC: [(&str, u64); 12] = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    if let Some(at) = SOCKETCALL.iter().position(|n| *n == name) {
        return u64::try_from(at).ok().map(|at| ("socketcall", at + 1));
    }
    let found = IPC.iter().find(|(n, _)| *n == name);
    found.map(|(_, call)| ("ipc", *call))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_differ_by_architecture() {
        assert_eq!(Arch::X86_64.number("execve"), Some(59));
        assert_eq!(Arch::X86.number("execve"), Some(11));
        assert_eq!(Arch::X32.number("execve"), Some(520 | X32_BIT));
        assert_eq!(Arch::Aarch64.number("mkdir"), None);
        assert_eq!(Arch::Arm.number("breakpoint"), Some(0x000f_0001));
        assert_eq!(Arch::X86_64.number("mseal"), Some(462));
        assert_eq!(Arch::X86_64.number("no_such_call"), None);
    }

    #[test]
    fn multiplexed_calls_are_counted_as_the_kernel_does() {
        assert_eq!(multiplexed("socket"), Some(("socketcall", 1)));
        assert_eq!(multiplexed("sendmmsg"), Some(("socketcall", 20)));
        assert_eq!(multiplexed("shmctl"), Some(("ipc", 24)));
        assert_eq!(multiplexed("open"), None);
    }
}
