//! The same profile, compiled by libseccomp.

use std::fs::File;
use std::io::{Read, Seek};

use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};

use super::*;
use crate::profile::{Condition, Operator};

fn action(action: Action) -> ScmpAction {
    match action {
        Action::ALLOW => ScmpAction::Allow,
        Action(value) => ScmpAction::Errno(i32::try_from(value & 0xffff).unwrap()),
    }
}

fn compare(c: &Condition) -> ScmpArgCompare {
    let (operator, value) = match c.operator {
        Operator::NotEqual => (ScmpCompareOp::NotEqual, c.value),
        Operator::Less => (ScmpCompareOp::Less, c.value),
        Operator::LessOrEqual => (ScmpCompareOp::LessOrEqual, c.value),
        Operator::Equal => (ScmpCompareOp::Equal, c.value),
        Operator::GreaterOrEqual => (ScmpCompareOp::GreaterEqual, c.value),
        Operator::Greater => (ScmpCompareOp::Greater, c.value),
        Operator::MaskedEqual => (ScmpCompareOp::MaskedEqual(c.value), c.value_two),
    };
    ScmpArgCompare::new(c.index, operator, value)
}

/// libseccomp's program of what we decided on each architecture.
fn theirs(profile: &Profile, context: &Context, arch: Arch) -> Vec<Insn> {
    let mut filter = ScmpFilterContext::new(action(profile.default)).unwrap();
    let native = ScmpArch::X8664;
    let their_arch = match arch {
        Arch::X86_64 => native,
        Arch::X86 => ScmpArch::X86,
        Arch::X32 => ScmpArch::X32,
        Arch::Aarch64 | Arch::Arm => unreachable!(),
    };
    if their_arch != native {
        filter.add_arch(their_arch).unwrap();
        filter.remove_arch(native).unwrap();
    }
    for rule in profile.rules.iter().filter(|rule| context.applies(rule)) {
        for name in &rule.names {
            let Ok(number) = ScmpSyscall::from_name_by_arch(name, native) else {
                continue;
            };
            if rule.action == profile.default {
                continue;
            }
            let conditions: Vec<_> = rule.conditions.iter().map(compare).collect();
            // An unknown name on this architecture, or a rule that is there already.
            drop(if conditions.is_empty() {
                filter.add_rule(action(rule.action), number)
            } else {
                filter.add_rule_conditional(action(rule.action), number, &conditions)
            });
        }
    }
    let memfd = rustix::fs::memfd_create("bpf", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = File::from(memfd);
    filter.export_bpf(&file).unwrap();
    file.rewind().unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
        .chunks_exact(8)
        .map(|b| Insn {
            code: u16::from_ne_bytes([b[0], b[1]]),
            yes: b[2],
            no: b[3],
            value: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        })
        .collect()
}

/// Numbers libseccomp 2.5.4 knows end here; what came later it can't be asked about.
const NEWEST_OF_LIBSECCOMP: u32 = 450;

/// uretprobe and uprobe of x86-64 fill a gap.
fn came_later(arch: Arch, number: u32) -> bool {
    arch == Arch::X86_64 && matches!(number, 335 | 336)
}

#[test]
fn we_decide_as_libseccomp_does() {
    for caps in [
        &[][..],
        &["CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_SYS_NICE"][..],
    ] {
        let profile = Profile::runtime_default();
        let context = context(caps);
        let ours = program(profile, &context);
        for (arch, base) in [(Arch::X86_64, 0), (Arch::X86, 0), (Arch::X32, X32_BIT)] {
            let theirs = theirs(profile, &context, arch);
            let numbers = base..=base + NEWEST_OF_LIBSECCOMP;
            for number in numbers.filter(|n| !came_later(arch, *n)) {
                for first in [
                    0,
                    1,
                    2,
                    8,
                    37,
                    38,
                    40,
                    45,
                    46,
                    0x20008,
                    0x1000_0000,
                    0xffff_ffff,
                ] {
                    let data = Data {
                        number,
                        audit: arch.audit(),
                        args: [first, 0, 0, 0, 0, 0],
                    };
                    let (a, b) = (run(&ours, &data), run(&theirs, &data));
                    assert_eq!(a, b, "{arch:?} {number} arg {first:#x} caps {caps:?}");
                }
            }
        }
    }
}
