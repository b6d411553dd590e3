//! Programs are run in an interpreter, compared with libseccomp's, and loaded into real processes.

use std::time::{Duration, Instant};

use super::*;
use crate::bpf::{AND, IF_EQUAL, IF_GREATER, IF_GREATER_OR_EQUAL, JUMP, LOAD, RETURN};

mod differential;
mod loaded;

fn context(caps: &[&str]) -> Context {
    let mut caps: Vec<String> = caps.iter().map(|c| (*c).to_owned()).collect();
    caps.sort();
    Context {
        native: Arch::X86_64,
        caps,
        kernel: (6, 1),
    }
}

/// `struct seccomp_data`.
#[derive(Debug, Clone, Copy)]
struct Data {
    number: u32,
    audit: u32,
    args: [u64; 6],
}

impl Data {
    fn word(&self, offset: u32) -> u32 {
        let mut bytes = [0u8; 64];
        bytes[..4].copy_from_slice(&self.number.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.audit.to_ne_bytes());
        for (i, arg) in self.args.iter().enumerate() {
            bytes[16 + 8 * i..24 + 8 * i].copy_from_slice(&arg.to_ne_bytes());
        }
        let at = usize::try_from(offset).unwrap();
        u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
    }
}

/// Runs a program; panics on what the kernel would not load.
fn run(program: &[Insn], data: &Data) -> u32 {
    let (mut at, mut a, mut memory) = (0usize, 0u32, [0u32; 16]);
    loop {
        let insn = program[at];
        let k = insn.value;
        at += 1;
        let holds = match insn.code {
            LOAD => {
                a = data.word(k);
                continue;
            }
            AND => {
                a &= k;
                continue;
            }
            // libseccomp keeps loaded words in scratch memory: ST and LD M.
            0x02 => {
                memory[usize::try_from(k).unwrap()] = a;
                continue;
            }
            0x60 => {
                a = memory[usize::try_from(k).unwrap()];
                continue;
            }
            JUMP => {
                at += usize::try_from(k).unwrap();
                continue;
            }
            RETURN => return k,
            IF_EQUAL => a == k,
            IF_GREATER => a > k,
            IF_GREATER_OR_EQUAL => a >= k,
            other => panic!("code {other:#x}"),
        };
        at += usize::from(if holds { insn.yes } else { insn.no });
    }
}

fn call(arch: Arch, name: &str, args: &[u64]) -> Data {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    Data {
        number: arch.number(name).unwrap(),
        audit: arch.audit(),
        args: all,
    }
}

fn profile(json: &str) -> Profile {
    Profile::parse(json.as_bytes()).unwrap()
}

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

#[test]
fn the_default_profile_decides_by_arguments() {
    let p = program(Profile::runtime_default(), &context(&[]));
    for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
        let of = |name: &str, args: &[u64]| run(&p, &call(arch, name, args));
        assert_eq!(of("read", &[]), ALLOW);
        assert_eq!(of("mount", &[]), EPERM);
        assert_eq!(of("clone3", &[]), ENOSYS);
        assert_eq!(of("clone", &[0x11]), ALLOW);
        assert_eq!(of("clone", &[0x1000_0000]), EPERM, "a user namespace");
        assert_eq!(of("personality", &[0x20008]), ALLOW);
        assert_eq!(of("personality", &[0x40000]), EPERM);
        for (family, verdict) in [
            (1, ALLOW),
            (2, ALLOW),
            (37, ALLOW),
            (38, EPERM),
            (39, ALLOW),
        ] {
            assert_eq!(of("socket", &[family]), verdict, "family {family}");
        }
        assert_eq!(of("socket", &[40]), EPERM, "AF_VSOCK");
        assert_eq!(of("socket", &[46]), EPERM);
    }
    let of = |arch, name, args: &[u64]| run(&p, &call(arch, name, args));
    // The high half of an argument counts where there is one.
    assert_eq!(of(Arch::X86_64, "socket", &[1 | 1 << 32]), EPERM);
}

#[test]
fn foreign_architectures_end_the_process_and_unlisted_x32_is_not_there() {
    let p = program(Profile::runtime_default(), &context(&[]));
    let foreign = Data {
        number: 0,
        audit: Arch::Aarch64.audit(),
        args: [0; 6],
    };
    assert_eq!(run(&p, &foreign), 0x8000_0000);
    // A profile that denies little must not be evaded through x32.
    let p = program(
        &profile(
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],
            "syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}"#,
        ),
        &context(&[]),
    );
    assert_eq!(run(&p, &call(Arch::X32, "mkdir", &[])), ENOSYS);
    assert_eq!(run(&p, &call(Arch::X86_64, "mkdir", &[])), EPERM);
    assert_eq!(run(&p, &call(Arch::X86_64, "rmdir", &[])), ALLOW);
}

#[test]
fn every_comparison_sees_all_64_bits() {
    type Holds = fn(u64, u64) -> bool;
    let operators: [(&str, Holds); 6] = [
        ("NE", |a, b| a != b),
        ("LT", |a, b| a < b),
        ("LE", |a, b| a <= b),
        ("EQ", |a, b| a == b),
        ("GE", |a, b| a >= b),
        ("GT", |a, b| a > b),
    ];
    let values = [
        0,
        1,
        7,
        u64::from(u32::MAX),
        1 << 32,
        (1 << 32) + 7,
        (7 << 32) + 1,
        u64::MAX,
    ];
    for (operator, holds) in operators {
        for wanted in values {
            let json = format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["read"],
                "action":"SCMP_ACT_ALLOW","args":[
                {{"index":2,"value":{wanted},"op":"SCMP_CMP_{operator}"}},
                {{"index":3,"value":5,"op":"SCMP_CMP_EQ"}}]}}]}}"#
            );
            let p = program(&profile(&json), &context(&[]));
            for given in values {
                for other in [5, 6] {
                    let data = call(Arch::X86_64, "read", &[0, 0, given, other]);
                    let expected = holds(given, wanted) && other == 5;
                    let verdict = if expected { ALLOW } else { EPERM };
                    assert_eq!(run(&p, &data), verdict, "{given:#x} {operator} {wanted:#x}");
                }
            }
        }
    }
}

#[test]
fn a_hostile_profile_is_refused_soon() {
    let rule = |i: usize| {
        let args: Vec<String> = (0..6)
            .map(|a| format!(r#"{{"index":{a},"value":{i},"op":"SCMP_CMP_EQ"}}"#))
            .collect();
        format!(
            r#"{{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{}]}}"#,
            args.join(",")
        )
    };
    let rules: Vec<String> = (0..2000).map(rule).collect();
    let json = format!(
        r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{}]}}"#,
        rules.join(",")
    );
    let started = Instant::now();
    let error = compile(&profile(&json), &[]).unwrap_err();
    assert!(matches!(error, CompileError::TooLarge(_)), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_default_profile_is_small() {
    let p = program(Profile::runtime_default(), &context(&[]));
    assert!(p.len() < 1500, "{} instructions", p.len());
    let started = Instant::now();
    for _ in 0..100 {
        compile(Profile::runtime_default(), &[]).unwrap();
    }
    println!(
        "{} instructions, {:?} each",
        p.len(),
        started.elapsed() / 100
    );
}
