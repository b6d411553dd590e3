//! System calls without a safe wrapper in the crates used here.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// How a process is forked.
#[derive(Debug, Default)]
pub struct Fork<'a> {
    /// A cgroup v2 folder in which the child starts.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The child's parent is the caller's parent.
    pub sibling: bool,
}

/// Forks; the child runs `child`, leaves with its result and never returns.
pub fn fork(options: &Fork<'_>, child: impl FnOnce() -> i32) -> io::Result<Pid> {
    joey_failpoint::hit("process.fork")?;
    // SAFETY: zero is a valid value of every field of clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    if options.sibling {
        args.flags |= u64::from(libc::CLONE_PARENT.unsigned_abs());
    } else {
        args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    }
    if let Some(cgroup) = options.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // SAFETY: this process has one thread, so the child's copy of memory is consistent; no stack
    // is given, so the child goes on with a copy of this one, as after fork(2).
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            size_of::<libc::clone_args>(),
        )
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            joey_failpoint::become_role(joey_failpoint::Role::Worker);
            let code = catch_unwind(AssertUnwindSafe(child)).unwrap_or(101);
            // SAFETY: _exit has no preconditions; the copy of the parent's state is not dropped.
            unsafe { libc::_exit(code) }
        }
        pid => i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::ErrorKind::InvalidData.into()),
    }
}

/// A child that has ended and is not reaped yet.
pub fn ended_child() -> Option<Pid> {
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: all zeros are a valid value; it says that no child has ended.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer leads to a value that this call alone uses.
    while unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) } == -1 {
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return None;
        }
    }
    // SAFETY: the call has filled in what it tells of a child, or left the zeros.
    Pid::from_raw(unsafe { info.si_pid() })
}

/// A descriptor of a child; None for one that has ended and is just being reaped.
pub fn pidfd(pid: i32) -> Result<Option<OwnedFd>, Errno> {
    let pid = Pid::from_raw(pid).ok_or(Errno::INVAL)?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(fd) => Ok(Some(fd)),
        // EINVAL: before 6.14.
        Err(Errno::SRCH | Errno::INVAL) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What `mount_setattr` changes.
#[derive(Debug, Default, Clone, Copy)]
pub struct MountChange<'a> {
    /// `MOUNT_ATTR_*` bits to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` bits to clear.
    pub clear: u64,
    /// One of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, or 0.
    pub propagation: u64,
    /// The user namespace of `MOUNT_ATTR_IDMAP`.
    pub userns: Option<BorrowedFd<'a>>,
    /// Also every mount below.
    pub recursive: bool,
}

/// Changes the mount that `mount` stands for.
pub fn mount_setattr(mount: BorrowedFd<'_>, change: &MountChange<'_>) -> io::Result<()> {
    joey_failpoint::hit("mount.change")?;
    let mut attr = libc::mount_attr {
        attr_set: change.set,
        attr_clr: change.clear,
        propagation: change.propagation,
        userns_fd: 0,
    };
    if let Some(userns) = change.userns {
        attr.attr_set |= libc::MOUNT_ATTR_IDMAP;
        attr.userns_fd = u64::from(userns.as_raw_fd().unsigned_abs());
    }
    let flags = libc::AT_EMPTY_PATH
        | if change.recursive {
            libc::AT_RECURSIVE
        } else {
            0
        };
    // SAFETY: the path is a C string, `attr` is a mount_attr of the size given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Closes every descriptor from 3 up that is not in `keep`.
pub fn close_all_but(keep: &mut [RawFd]) {
    keep.sort_unstable();
    let mut first = 3;
    for &fd in keep.iter().filter(|&&fd| fd >= 3) {
        if fd > first {
            close_range(first, fd - 1, 0);
        }
        first = fd + 1;
    }
    close_range(first, RawFd::MAX, 0);
}

/// Closes the standard descriptors, which nothing in this process uses.
pub fn close_standard() {
    // SAFETY: std's handles of them are never used after this.
    unsafe { libc::syscall(libc::SYS_close_range, 0, 2, 0) };
}

/// Marks every descriptor from 3 up close-on-exec.
pub fn cloexec_all() {
    close_range(3, RawFd::MAX, libc::CLOSE_RANGE_CLOEXEC);
}

fn close_range(first: RawFd, last: RawFd, flags: libc::c_uint) {
    // SAFETY: only descriptors that the caller gave up are closed. It cannot fail with first <= last
    // on the kernels supported (5.11 and later).
    unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
}

/// Unshares namespaces (`CLONE_NEW*` bits).
pub fn unshare(flags: libc::c_int) -> io::Result<()> {
    joey_failpoint::hit("namespace.make")?;
    // SAFETY: the process has one thread; no descriptor table is shared.
    if unsafe { libc::unshare(flags) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Joins the namespaces `flags` of a namespace descriptor or a pidfd.
pub fn setns(fd: BorrowedFd<'_>, flags: libc::c_int) -> io::Result<()> {
    joey_failpoint::hit("namespace.enter")?;
    // SAFETY: plain system call on an owned descriptor.
    if unsafe { libc::setns(fd.as_raw_fd(), flags) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Installs a compiled classic BPF program as a seccomp filter.
pub fn seccomp_load(program: &[u8], flags: u32) -> io::Result<()> {
    let size = size_of::<libc::sock_filter>();
    let filters: Vec<libc::sock_filter> = program
        .chunks_exact(size)
        .map(|chunk| libc::sock_filter {
            code: u16::from_ne_bytes([chunk[0], chunk[1]]),
            jt: chunk[2],
            jf: chunk[3],
            k: u32::from_ne_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]),
        })
        .collect();
    let len =
        u16::try_from(filters.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog {
        len,
        filter: filters.as_ptr().cast_mut(),
    };
    // SAFETY: `program` points at `len` filters that outlive the call; the kernel only reads them.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sets one rlimit of this process.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: `limit` is a valid rlimit64; no old value is asked for.
    let done = unsafe { libc::prlimit64(0, resource, &raw const limit, std::ptr::null_mut()) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// One rlimit of this process: soft and hard.
pub fn get_rlimit(resource: u32) -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid rlimit64 to write to; no new value is given.
    let done = unsafe { libc::prlimit64(0, resource, std::ptr::null(), &raw mut limit) };
    if done == 0 {
        Ok((limit.rlim_cur, limit.rlim_max))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Signal dispositions and mask as a new program expects them.
pub fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL is a valid disposition; signals that cannot be changed are refused.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an empty set is initialised before it is used.
    unsafe {
        let mut empty: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut empty);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, std::ptr::null_mut());
    }
}

/// The signals of a worker: as a new program expects them, for hooks, but a hook that does not
/// read its input must not end the worker.
pub fn worker_signals() {
    reset_signals();
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Gives the heap's free pages back: a shim idles for as long as its pod lives.
pub fn trim_heap() {
    // SAFETY: plain call of the allocator that this process uses.
    unsafe { libc::malloc_trim(0) };
}

/// Sends any signal, real-time ones too, to a process or, negative, a process group.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: plain system call.
    if unsafe { libc::kill(pid, signal) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sends any signal through a pidfd.
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: plain system call without siginfo.
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<u8>(),
            0,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Opens the slave of a pty master, without a path (CVE-2016-2568, CVE-2025-52565).
pub fn pty_slave(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags by value and returns a new descriptor.
    let fd = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave this descriptor to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets the window size of a terminal.
pub fn resize(terminal: BorrowedFd<'_>, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize.
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Executes `path`; returns only the error.
pub fn execve(
    path: &std::ffi::CStr,
    args: &[std::ffi::CString],
    env: &[std::ffi::CString],
) -> io::Error {
    if let Err(error) = joey_failpoint::hit("process.exec") {
        return error;
    }
    let list = |strings: &[std::ffi::CString]| {
        strings
            .iter()
            .map(|s| s.as_ptr())
            .chain(std::iter::once(std::ptr::null()))
            .collect::<Vec<_>>()
    };
    let (args, env) = (list(args), list(env));
    // SAFETY: both lists hold C strings that live on, and end in a null pointer.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Executes the file behind a descriptor; returns only the error.
pub fn fexecve(file: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Error {
    let args = [name.as_ptr(), std::ptr::null()];
    let env = [std::ptr::null::<libc::c_char>()];
    // SAFETY: the path and arguments are C strings, both lists end in a null pointer.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reaped_child_has_no_descriptor() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let pid = child.id().cast_signed();
        assert!(pidfd(pid).unwrap().is_some());
        child.wait().unwrap();
        assert!(pidfd(pid).unwrap().is_none());
        pidfd(0).unwrap_err();
    }
}
