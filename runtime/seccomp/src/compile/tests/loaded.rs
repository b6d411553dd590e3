//! Programs in the kernel: a forked child loads one and makes system calls.

use super::*;

/// Loads the profile in a forked child, which makes the calls; their results as `−errno` or 0.
fn results(profile: &Profile, caps: &[&str], calls: &[fn() -> i64]) -> Vec<i32> {
    let caps: Vec<String> = caps.iter().map(|c| (*c).to_owned()).collect();
    let compiled = compile(profile, &caps).unwrap();
    let program = &compiled.programs[0];
    let header = libc::sock_fprog {
        len: u16::try_from(program.len() / 8).unwrap(),
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    let mut answers = vec![i32::MAX; calls.len()];
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    // SAFETY: the child makes system calls only, on memory that was allocated before the fork.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: `header` and `program` outlive the calls; _exit ends the child here.
            unsafe {
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                let loaded = libc::syscall(
                    libc::SYS_seccomp,
                    libc::SECCOMP_SET_MODE_FILTER,
                    compiled.flags,
                    &raw const header,
                );
                if loaded != 0 {
                    libc::_exit(1);
                }
            }
            for (answer, call) in answers.iter_mut().zip(calls) {
                *answer = i32::try_from(call()).unwrap_or(i32::MAX);
            }
            let bytes: Vec<u8> = answers.iter().flat_map(|a| a.to_ne_bytes()).collect();
            rustix::io::write(&writer, &bytes).ok();
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(0) }
        }
        child => {
            drop(writer);
            let mut status = 0;
            // SAFETY: waits for our own child.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!(
                status, 0,
                "the child could not load the program or was killed"
            );
        }
    }
    let mut bytes = vec![0; calls.len() * 4];
    let n = rustix::io::read(&reader, &mut bytes).unwrap();
    assert_eq!(n, bytes.len());
    bytes
        .chunks_exact(4)
        .map(|b| i32::from_ne_bytes(b.try_into().unwrap()))
        .collect()
}

fn negative_errno(result: libc::c_long) -> i64 {
    if result == -1 {
        -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap())
    } else {
        0
    }
}

fn mkdir() -> i64 {
    // SAFETY: a constant path; the folder exists, so that nothing is made.
    negative_errno(unsafe { libc::syscall(libc::SYS_mkdir, c"/proc".as_ptr(), 0o700) })
}

fn chroot() -> i64 {
    // SAFETY: a constant path.
    negative_errno(unsafe { libc::syscall(libc::SYS_chroot, c"/no/such/folder".as_ptr()) })
}

fn unknown() -> i64 {
    // SAFETY: no such system call.
    negative_errno(unsafe { libc::syscall(9999) })
}

fn clone3() -> i64 {
    // SAFETY: a null argument, refused by the kernel if it gets that far.
    negative_errno(unsafe { libc::syscall(libc::SYS_clone3, 0, 0) })
}

fn vsock() -> i64 {
    // SAFETY: a socket of the child.
    negative_errno(unsafe { libc::syscall(libc::SYS_socket, libc::AF_VSOCK, libc::SOCK_STREAM, 0) })
}

/// mkdir("/proc") of i386, through its own entry into the kernel.
#[cfg(target_arch = "x86_64")]
fn mkdir_32() -> i64 {
    let mut result: i64 = 39;
    // SAFETY: int 0x80 takes numbers and arguments of i386; the null path is refused.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {path}",
            "int 0x80",
            "xchg rbx, {path}",
            path = inout(reg) 0u64 => _,
            inout("rax") result,
            in("rcx") 0o700u64,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    i64::from(i32::try_from(result & 0xffff_ffff).unwrap_or_else(|_| {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the low half holds the result"
        )]
        let low = result as i32;
        low
    }))
}

#[test]
fn the_default_profile_is_in_force() {
    let profile = Profile::runtime_default();
    let all: [fn() -> i64; 5] = [mkdir, chroot, unknown, clone3, vsock];
    let plain = results(profile, &[], &all);
    let expected = [
        -libc::EEXIST,
        -libc::EPERM,
        -libc::ENOSYS,
        -libc::ENOSYS,
        -libc::EPERM,
    ];
    assert_eq!(plain, expected);
    let with = results(profile, &["CAP_SYS_CHROOT"], &all[1..2]);
    assert_eq!(
        with,
        [-libc::ENOENT],
        "chroot is allowed with its capability"
    );
}

#[test]
fn each_call_gets_its_own_errno() {
    let profile = profile(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
        {"names":["mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":77},
        {"names":["chroot"],"action":"SCMP_ACT_ERRNO","errnoRet":5}]}"#,
    );
    assert_eq!(results(&profile, &[], &[mkdir, chroot]), [-77, -5]);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn programs_of_32_bit_obey_too() {
    let profile = profile(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],
        "syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":66}]}"#,
    );
    let result = mkdir_32();
    if result == -i64::from(libc::ENOSYS) {
        println!("skipped: this kernel has no 32-bit system calls");
        return;
    }
    assert_eq!(result, -i64::from(libc::EFAULT));
    assert_eq!(results(&profile, &[], &[mkdir_32]), [-66]);
}
