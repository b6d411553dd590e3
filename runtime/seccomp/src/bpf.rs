//! Classic BPF: the instructions a seccomp program may have, and programs built of them.

use crate::decide::{Call, Decisions};
use crate::profile::{Action, Condition, Operator};

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;
/// Where the halves of an argument lie within it.
const LOW: u32 = if cfg!(target_endian = "little") { 0 } else { 4 };
const HIGH: u32 = 4 - LOW;

// Codes from the kernel's linux/bpf_common.h.
pub(crate) const LOAD: u16 = 0x20;
pub(crate) const AND: u16 = 0x54;
pub(crate) const JUMP: u16 = 0x05;
pub(crate) const IF_EQUAL: u16 = 0x15;
pub(crate) const IF_GREATER: u16 = 0x25;
pub(crate) const IF_GREATER_OR_EQUAL: u16 = 0x35;
pub(crate) const RETURN: u16 = 0x06;

/// `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Insn {
    pub(crate) code: u16,
    /// Instructions skipped when the comparison holds, and when not.
    pub(crate) yes: u8,
    pub(crate) no: u8,
    pub(crate) value: u32,
}

impl Insn {
    const fn plain(code: u16, value: u32) -> Self {
        Self::branch(code, value, 0, 0)
    }

    const fn branch(code: u16, value: u32, yes: u8, no: u8) -> Self {
        Self {
            code,
            yes,
            no,
            value,
        }
    }

    fn to_bytes(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..2].copy_from_slice(&self.code.to_ne_bytes());
        bytes[2] = self.yes;
        bytes[3] = self.no;
        bytes[4..].copy_from_slice(&self.value.to_ne_bytes());
        bytes
    }
}

/// An array of `struct sock_filter` in host byte order.
pub(crate) fn to_bytes(program: &[Insn]) -> Vec<u8> {
    program.iter().flat_map(|insn| insn.to_bytes()).collect()
}

/// Numbers from `start` up to the next range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range<'a> {
    pub(crate) start: u32,
    pub(crate) leaf: Leaf<'a>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Leaf<'a> {
    Always(Action),
    ByArguments {
        call: &'a Call,
        default: Action,
        /// Arguments have 32 bits.
        narrow: bool,
    },
}

/// The ranges of an architecture whose numbers begin at `from`.
pub(crate) fn ranges(decisions: &Decisions, from: u32, narrow: bool) -> Vec<Range<'_>> {
    // Range ends and single numbers, in order.
    let mut all_starts: Vec<(u32, Option<&Call>)> = decisions
        .calls
        .iter()
        .map(|(number, call)| (*number, Some(call)))
        .collect();
    all_starts.extend(decisions.first_newer().map(|n| (n, None)));
    all_starts.sort_by_key(|(number, _)| *number);
    let mut all = Vec::new();
    push_range(&mut all, from, Leaf::Always(decisions.unnamed(from)));
    for (number, call) in all_starts {
        let leaf = call.map_or_else(
            || Leaf::Always(decisions.unnamed(number)),
            |call| leaf_of(call, decisions.default(), narrow),
        );
        push_range(&mut all, number, leaf);
        if call.is_some()
            && let Some(next) = number.checked_add(1)
        {
            push_range(&mut all, next, Leaf::Always(decisions.unnamed(next)));
        }
    }
    all
}

fn leaf_of(call: &Call, default: Action, narrow: bool) -> Leaf<'_> {
    let otherwise = call.otherwise.unwrap_or(default);
    if call
        .conditional
        .iter()
        .all(|(_, action)| *action == otherwise)
    {
        return Leaf::Always(otherwise);
    }
    Leaf::ByArguments {
        call,
        default: otherwise,
        narrow,
    }
}

/// A later range beginning at the same number replaces the earlier; equal neighbours become one.
fn push_range<'a>(all: &mut Vec<Range<'a>>, start: u32, leaf: Leaf<'a>) {
    if all.last().is_some_and(|last| last.start == start) {
        all.pop();
    }
    if all.last().is_none_or(|last| last.leaf != leaf) {
        all.push(Range { start, leaf });
    }
}

/// A whole program. Each section is for one `AUDIT_ARCH_*`, its ranges beginning at 0; a system call
/// of another architecture ends the process.
pub(crate) fn program(sections: &[(u32, Vec<Range<'_>>)]) -> Vec<Insn> {
    let mut all = vec![Insn::plain(LOAD, ARCH)];
    for (audit, ranges) in sections {
        let mut section = vec![Insn::plain(LOAD, NUMBER)];
        section.extend(search(ranges));
        all.push(Insn::branch(IF_EQUAL, *audit, 1, 0));
        all.push(jump(section.len()));
        all.extend(section);
    }
    all.push(Insn::plain(RETURN, Action::KILL_PROCESS.0));
    all
}

/// A binary search for the range of the loaded number. Every path ends in a return.
fn search(ranges: &[Range<'_>]) -> Vec<Insn> {
    let [.., _, _] = ranges else {
        return ranges.first().map_or_else(Vec::new, |r| leaf(&r.leaf));
    };
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let (below, above) = (search(lower), search(upper));
    let start = upper[0].start;
    let mut all = match u8::try_from(below.len()) {
        Ok(skipped) => vec![Insn::branch(IF_GREATER_OR_EQUAL, start, skipped, 0)],
        Err(_) => vec![
            Insn::branch(IF_GREATER_OR_EQUAL, start, 0, 1),
            jump(below.len()),
        ],
    };
    all.extend(below);
    all.extend(above);
    all
}

/// Beyond any program the kernel takes, so the size is checked before this could be wrong.
fn jump(skipped: usize) -> Insn {
    Insn::plain(JUMP, u32::try_from(skipped).unwrap_or(u32::MAX))
}

fn leaf(leaf: &Leaf<'_>) -> Vec<Insn> {
    match leaf {
        Leaf::Always(action) => vec![Insn::plain(RETURN, action.0)],
        Leaf::ByArguments {
            call,
            default,
            narrow,
        } => {
            let mut all = Vec::new();
            for (conditions, action) in &call.conditional {
                all.extend(rule(conditions, *action, *narrow));
            }
            all.push(Insn::plain(RETURN, default.0));
            all
        }
    }
}

/// Where a comparison leads.
#[derive(Clone, Copy)]
enum To {
    /// The next instruction but this many.
    Skip(u8),
    /// The condition holds: what follows it.
    Pass,
    /// The next rule.
    Fail,
}

/// An instruction whose branches are not placed yet.
type Draft = (u16, u32, To, To);

/// Returns the action if all conditions hold, else goes on behind it. At most 6 × 6 + 1
/// instructions, so that its jumps fit.
fn rule(conditions: &[Condition], action: Action, narrow: bool) -> Vec<Insn> {
    let parts: Vec<Vec<Draft>> = conditions.iter().map(|c| condition(c, narrow)).collect();
    let length = parts.iter().map(Vec::len).sum::<usize>() + 1;
    let mut all: Vec<Insn> = Vec::with_capacity(length);
    for part in parts {
        let end = all.len() + part.len();
        for (code, value, yes, no) in part {
            let here = all.len();
            let place = |to: To| match to {
                To::Skip(n) => n,
                To::Pass => offset(here, end),
                To::Fail => offset(here, length),
            };
            all.push(Insn::branch(code, value, place(yes), place(no)));
        }
    }
    all.push(Insn::plain(RETURN, action.0));
    all
}

fn offset(here: usize, target: usize) -> u8 {
    u8::try_from(target - here - 1).unwrap_or(u8::MAX)
}

fn condition(condition: &Condition, narrow: bool) -> Vec<Draft> {
    let (low, high) = halves(condition.value);
    let (low_two, high_two) = halves(condition.value_two);
    let load = |half: u32| -> Draft {
        let at = ARGUMENTS + condition.index * 8 + half;
        (LOAD, at, To::Skip(0), To::Skip(0))
    };
    let and = |mask: u32| -> Draft { (AND, mask, To::Skip(0), To::Skip(0)) };
    use Operator::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, MaskedEqual, NotEqual};
    let (holds, fails) = match condition.operator {
        // "not equal", "less", "less or equal" are their opposites turned round.
        NotEqual | Less | LessOrEqual => (To::Fail, To::Pass),
        Equal | GreaterOrEqual | Greater | MaskedEqual => (To::Pass, To::Fail),
    };
    let compare = match condition.operator {
        Equal | NotEqual | MaskedEqual => IF_EQUAL,
        GreaterOrEqual | Less => IF_GREATER_OR_EQUAL,
        Greater | LessOrEqual => IF_GREATER,
    };
    let mut all = Vec::with_capacity(6);
    if !narrow {
        all.push(load(HIGH));
        match condition.operator {
            MaskedEqual => {
                all.push(and(high));
                all.push((IF_EQUAL, high_two, To::Skip(0), fails));
            }
            Equal | NotEqual => all.push((IF_EQUAL, high, To::Skip(0), fails)),
            _ => {
                all.push((IF_GREATER, high, holds, To::Skip(0)));
                all.push((IF_EQUAL, high, To::Skip(0), fails));
            }
        }
    }
    all.push(load(LOW));
    if condition.operator == MaskedEqual {
        all.push(and(low));
        all.push((IF_EQUAL, low_two, holds, fails));
    } else {
        all.push((compare, low, holds, fails));
    }
    all
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "each half is what is wanted"
)]
fn halves(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}
