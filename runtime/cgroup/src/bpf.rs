//! Device rules of v2: a program of type `BPF_PROG_TYPE_CGROUP_DEVICE` attached to the group.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use crate::resources::{DeviceKind, DeviceRule};

/// How our programs are told from those of others, such as systemd's.
const NAME: &CStr = c"joey_devices";

// Numbers from the kernel's linux/bpf.h.
const CMD_PROG_LOAD: libc::c_int = 5;
const CMD_PROG_ATTACH: libc::c_int = 8;
const CMD_PROG_GET_FD_BY_ID: libc::c_int = 13;
const CMD_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const CMD_PROG_QUERY: libc::c_int = 16;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const F_ALLOW_MULTI: u32 = 1 << 1;
const F_REPLACE: u32 = 1 << 2;
const DEV_BLOCK: i32 = 1;
const DEV_CHAR: i32 = 2;
const ACC_MKNOD: i32 = 1;
const ACC_READ: i32 = 2;
const ACC_WRITE: i32 = 4;
/// More programs on one group than anyone attaches.
const MAX_PROGRAMS: usize = 64;

/// An eBPF instruction.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Insn {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Insn {
    const fn new(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Self {
        Self {
            code,
            registers: to | (from << 4),
            offset,
            immediate,
        }
    }

    const fn load(to: u8, offset: i16) -> Self {
        Self::new(0x61, to, 1, offset, 0)
    }
    const fn copy(to: u8, from: u8) -> Self {
        Self::new(0xbc, to, from, 0, 0)
    }
    const fn set(to: u8, value: i32) -> Self {
        Self::new(0xb4, to, 0, 0, value)
    }
    const fn and(to: u8, value: i32) -> Self {
        Self::new(0x54, to, 0, 0, value)
    }
    const fn shift_right(to: u8, bits: i32) -> Self {
        Self::new(0x74, to, 0, 0, bits)
    }
    /// The offset of a jump is set once the rule's length is known.
    const fn skip_unless_equal(register: u8, value: i32) -> Self {
        Self::new(0x56, register, 0, 0, value)
    }
    const fn skip_unless_same(register: u8, other: u8) -> Self {
        Self::new(0x5e, register, other, 0, 0)
    }
    const fn skip_if_zero(register: u8) -> Self {
        Self::new(0x16, register, 0, 0, 0)
    }
    const EXIT: Self = Self::new(0x95, 0, 0, 0, 0);

    fn is_jump(self) -> bool {
        matches!(self.code, 0x56 | 0x5e | 0x16)
    }
}

/// r2 kind, r3 access, r4 major, r5 minor; r1 is free after the loads. Later rules are asked first.
fn program(rules: &[DeviceRule]) -> Vec<Insn> {
    let mut all = vec![
        Insn::load(2, 0),
        Insn::copy(3, 2),
        Insn::and(2, 0xffff),
        Insn::shift_right(3, 16),
        Insn::load(4, 4),
        Insn::load(5, 8),
    ];
    for rule in rules.iter().rev() {
        all.extend(rule_program(rule));
        if rule.is_total() {
            return all;
        }
    }
    all.extend([Insn::set(0, 0), Insn::EXIT]);
    all
}

fn rule_program(rule: &DeviceRule) -> Vec<Insn> {
    let mut part = Vec::new();
    match rule.kind {
        DeviceKind::All => {}
        DeviceKind::Block => part.push(Insn::skip_unless_equal(2, DEV_BLOCK)),
        DeviceKind::Char => part.push(Insn::skip_unless_equal(2, DEV_CHAR)),
    }
    let access = [
        (rule.read, ACC_READ),
        (rule.write, ACC_WRITE),
        (rule.mknod, ACC_MKNOD),
    ]
    .into_iter()
    .filter_map(|(set, bit)| set.then_some(bit))
    .sum::<i32>();
    if access != ACC_READ | ACC_WRITE | ACC_MKNOD {
        part.extend([Insn::copy(1, 3), Insn::and(1, access)]);
        // An allowing rule must cover all that is asked for, a denying one any of it.
        part.push(if rule.allow {
            Insn::skip_unless_same(1, 3)
        } else {
            Insn::skip_if_zero(1)
        });
    }
    for (register, number) in [(4, rule.major), (5, rule.minor)] {
        if let Some(number) = number {
            part.push(Insn::skip_unless_equal(register, number.cast_signed()));
        }
    }
    part.extend([Insn::set(0, i32::from(rule.allow)), Insn::EXIT]);
    let end = part.len();
    for (at, insn) in part.iter_mut().enumerate() {
        if insn.is_jump() {
            insn.offset = i16::try_from(end - at - 1).unwrap_or(i16::MAX);
        }
    }
    part
}

/// Attaches a program of these rules to the group in `dir`; one of ours that is there is replaced in
/// one step, so that no moment is without rules.
pub(crate) fn attach(dir: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    joey_failpoint::hit("cgroup.devices")?;
    let group = File::open(dir)?;
    let new = load(&program(rules))?;
    let old = ours(group.as_raw_fd())?;
    let mut attr = AttachAttr {
        target: fd_number(group.as_raw_fd()),
        program: fd_number(new.as_raw_fd()),
        kind: ATTACH_CGROUP_DEVICE,
        flags: F_ALLOW_MULTI,
        replaced: 0,
    };
    if let Some(old) = &old {
        attr.flags |= F_REPLACE;
        attr.replaced = fd_number(old.as_raw_fd());
    }
    bpf(CMD_PROG_ATTACH, &mut attr).map(drop)
}

fn load(program: &[Insn]) -> io::Result<OwnedFd> {
    let mut name = [0u8; 16];
    name[..NAME.to_bytes().len()].copy_from_slice(NAME.to_bytes());
    let mut attr = LoadAttr {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log: [0; 4],
        kernel_version: 0,
        flags: 0,
        name,
    };
    let fd = bpf(CMD_PROG_LOAD, &mut attr)?;
    // SAFETY: BPF_PROG_LOAD returned a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The program of ours that is attached to the group itself.
fn ours(group: RawFd) -> io::Result<Option<OwnedFd>> {
    let mut ids = [0u32; MAX_PROGRAMS];
    let mut attr = QueryAttr {
        target: fd_number(group),
        kind: ATTACH_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: u32::try_from(ids.len()).unwrap_or(u32::MAX),
        padding: 0,
    };
    bpf(CMD_PROG_QUERY, &mut attr)?;
    let count = usize::try_from(attr.count).unwrap_or(0).min(ids.len());
    for id in &ids[..count] {
        let mut attr = IdAttr {
            id: *id,
            ..IdAttr::default()
        };
        // One that ended meanwhile is not ours to replace.
        let Ok(fd) = bpf(CMD_PROG_GET_FD_BY_ID, &mut attr) else {
            continue;
        };
        // SAFETY: BPF_PROG_GET_FD_BY_ID returned a new descriptor that nothing else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        if name_of(&fd)?.starts_with(NAME.to_bytes_with_nul()) {
            return Ok(Some(fd));
        }
    }
    Ok(None)
}

fn name_of(program: &OwnedFd) -> io::Result<[u8; 16]> {
    let mut info = ProgramInfo {
        before: [0; 16],
        name: [0; 16],
    };
    let mut attr = InfoAttr {
        fd: fd_number(program.as_raw_fd()),
        length: u32::try_from(size_of::<ProgramInfo>()).unwrap_or(u32::MAX),
        info: (&raw mut info) as u64,
    };
    bpf(CMD_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info.name)
}

/// Descriptors are never negative here.
fn fd_number(fd: RawFd) -> u32 {
    fd.cast_unsigned()
}

// Beginnings of `union bpf_attr`, as far as each command needs; the kernel takes the rest as zero.

#[repr(C)]
struct LoadAttr {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u32; 4],
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
struct AttachAttr {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

#[repr(C)]
struct QueryAttr {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next: u32,
    flags: u32,
}

#[repr(C)]
struct InfoAttr {
    fd: u32,
    length: u32,
    info: u64,
}

/// The beginning of `struct bpf_prog_info`, up to its name.
#[repr(C)]
struct ProgramInfo {
    before: [u32; 16],
    name: [u8; 16],
}

fn bpf<A>(command: libc::c_int, attr: &mut A) -> io::Result<RawFd> {
    // SAFETY: every A of this module is a `repr(C)` beginning of `union bpf_attr` for its command,
    // its pointers are valid for the call, and the size passed is its own.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr as *mut A, size_of::<A>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the instructions that [`program`] uses.
    fn run(program: &[Insn], kind: i32, access: i32, major: u32, minor: u32) -> bool {
        let context = [(access << 16 | kind).cast_unsigned(), major, minor];
        let mut r = [0u32; 6];
        let mut at = 0;
        loop {
            let Insn {
                code,
                registers,
                offset,
                immediate,
            } = program[at];
            let (to, from) = (usize::from(registers & 15), usize::from(registers >> 4));
            let immediate = immediate.cast_unsigned();
            let mut jump = false;
            match code {
                0x61 => r[to] = context[usize::try_from(offset).unwrap() / 4],
                0xbc => r[to] = r[from],
                0xb4 => r[to] = immediate,
                0x54 => r[to] &= immediate,
                0x74 => r[to] >>= immediate,
                0x56 => jump = r[to] != immediate,
                0x5e => jump = r[to] != r[from],
                0x16 => jump = r[to] == immediate,
                0x95 => return r[0] == 1,
                other => panic!("{other:#x}"),
            }
            at += 1 + if jump {
                usize::try_from(offset).unwrap()
            } else {
                0
            };
        }
    }

    #[test]
    fn rules_decide_as_written() {
        let mut rules = crate::resources::default_devices();
        rules.push(DeviceRule::new(
            false,
            DeviceKind::Char,
            Some(1),
            Some(8),
            "w",
        ));
        let p = program(&rules);
        assert!(run(&p, DEV_CHAR, ACC_READ | ACC_WRITE, 1, 3));
        assert!(run(&p, DEV_CHAR, ACC_MKNOD, 240, 7));
        assert!(run(&p, DEV_BLOCK, ACC_MKNOD, 8, 0));
        assert!(!run(&p, DEV_BLOCK, ACC_READ, 8, 0));
        assert!(!run(&p, DEV_CHAR, ACC_READ, 240, 7));
        assert!(run(&p, DEV_CHAR, ACC_READ, 136, 12));
        assert!(run(&p, DEV_CHAR, ACC_READ, 1, 8));
        assert!(!run(&p, DEV_CHAR, ACC_READ | ACC_WRITE, 1, 8));
    }

    #[test]
    fn allowing_all_and_nothing() {
        assert!(run(
            &program(&[DeviceRule::allow_all()]),
            DEV_BLOCK,
            ACC_WRITE,
            8,
            0
        ));
        assert!(!run(&program(&[]), DEV_CHAR, ACC_READ, 1, 3));
        let mut rule = DeviceRule::allow_all();
        rule.allow = false;
        let p = program(&[DeviceRule::allow_all(), rule]);
        assert!(!run(&p, DEV_CHAR, ACC_READ, 1, 3));
    }

    /// Removed when dropped.
    struct OwnGroup(std::path::PathBuf);

    impl Drop for OwnGroup {
        fn drop(&mut self) {
            std::fs::remove_dir(&self.0).unwrap();
        }
    }

    fn own_group() -> Option<OwnGroup> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
        let layout = crate::layout::Layout::parse(&mounts)?;
        let name = format!("joey-test-bpf-{}", std::process::id());
        let dir = layout.unified()?.join(name);
        std::fs::create_dir(&dir).ok()?;
        Some(OwnGroup(dir))
    }

    /// What of null, zero and full a process in the group may read.
    fn readable(group: &Path) -> String {
        let script = "echo 0 > $0/cgroup.procs; \
            for d in null zero full; do (: < /dev/$d) 2>/dev/null && printf %s $d; done";
        let output = std::process::Command::new("/bin/sh")
            .args(["-c", script])
            .arg(group)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn an_attached_program_is_in_force_and_replaced() {
        let Some(group) = own_group() else {
            println!("skipped: needs root and a cgroup v2 tree");
            return;
        };
        let device = |minor| DeviceRule::new(true, DeviceKind::Char, Some(1), Some(minor), "rwm");
        attach(&group.0, &[device(3), device(7)]).unwrap();
        assert_eq!(readable(&group.0), "nullfull");
        attach(&group.0, &[device(3), device(5)]).unwrap();
        assert_eq!(readable(&group.0), "nullzero");
        attach(&group.0, &[DeviceRule::allow_all()]).unwrap();
        assert_eq!(readable(&group.0), "nullzerofull");
    }
}
