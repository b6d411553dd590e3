//! From a profile to what the kernel loads.

use crate::arch::{Arch, X32_BIT};
use crate::bpf::{self, Insn, Leaf, Range};
use crate::decide::{Context, Decisions};
use crate::profile::{Action, Profile, capability, kernel_version};

/// `BPF_MAXINSNS`: the kernel loads no longer program.
const MAX_INSTRUCTIONS: usize = 4096;

/// Why a profile has no program.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// More rules on arguments than fit.
    #[error("the seccomp profile needs {0} BPF instructions, the kernel takes {MAX_INSTRUCTIONS}")]
    TooLarge(usize),
    /// No numbers of system calls are known.
    #[error("seccomp profiles are not supported on this machine's architecture")]
    UnsupportedArchitecture,
}

/// Ready to be loaded, in any process and any number of times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// Each an array of `struct sock_filter` in host byte order; loaded in order by seccomp(2) with
    /// `SECCOMP_SET_MODE_FILTER`.
    pub programs: Vec<Vec<u8>>,
    /// `SECCOMP_FILTER_FLAG_*` for seccomp(2).
    pub flags: u32,
}

/// Compiles a profile for this machine. `caps` are those of the container's bounding set; names with
/// or without `CAP_`.
///
/// # Errors
/// When the program would be longer than the kernel takes.
pub fn compile(profile: &Profile, caps: &[String]) -> Result<Compiled, CompileError> {
    let native = Arch::native().ok_or(CompileError::UnsupportedArchitecture)?;
    let mut caps: Vec<String> = caps.iter().map(|c| capability(c)).collect();
    caps.sort();
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let context = Context {
        native,
        caps,
        kernel: kernel_version(&release).unwrap_or((0, 0)),
    };
    let program = program(profile, &context);
    if program.len() > MAX_INSTRUCTIONS {
        return Err(CompileError::TooLarge(program.len()));
    }
    Ok(Compiled {
        programs: vec![bpf::to_bytes(&program)],
        flags: profile.flags,
    })
}

pub(crate) fn program(profile: &Profile, context: &Context) -> Vec<Insn> {
    let arches = architectures(profile, context.native);
    let decided: Vec<(Arch, Decisions)> = arches
        .into_iter()
        .map(|arch| (arch, Decisions::of(profile, arch, context)))
        .collect();
    let find = |wanted: Arch| decided.iter().find(|(arch, _)| *arch == wanted);
    let mut sections = Vec::new();
    for (arch, decisions) in decided.iter().filter(|(arch, _)| *arch != Arch::X32) {
        let mut ranges = bpf::ranges(decisions, 0, arch.is_32_bit());
        if *arch == Arch::X86_64 {
            ranges.retain(|range| range.start < X32_BIT);
            match find(Arch::X32) {
                Some((_, x32)) => ranges.extend(bpf::ranges(x32, X32_BIT, false)),
                // Whatever the profile allows, it does not speak of these numbers.
                None => ranges.push(Range {
                    start: X32_BIT,
                    leaf: Leaf::Always(Action::ENOSYS),
                }),
            }
        }
        sections.push((arch.audit(), ranges));
    }
    bpf::program(&sections)
}

/// The native architecture first, then those the profile adds that this machine can run.
fn architectures(profile: &Profile, native: Arch) -> Vec<Arch> {
    let mut all = vec![native];
    for listed in &profile.architectures {
        match &listed.sub {
            None => all.extend(listed.main),
            Some(sub) if listed.main == Some(native) => all.extend(sub),
            Some(_) => {}
        }
    }
    let family: &[Arch] = match native {
        Arch::Aarch64 | Arch::Arm => &[Arch::Aarch64, Arch::Arm],
        Arch::X86_64 | Arch::X86 | Arch::X32 => &[Arch::X86_64, Arch::X86, Arch::X32],
    };
    let mut kept = Vec::new();
    for arch in all {
        if family.contains(&arch) && !kept.contains(&arch) {
            kept.push(arch);
        }
    }
    kept
}

#[cfg(test)]
mod tests;
