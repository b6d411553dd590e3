//! `joey-shim`: the monitor of one pod.
//!
//! One static, single-threaded process. It makes the pod's namespaces, starts containers and
//! processes in them through forked workers, keeps their logs, hands their streams to whoever
//! attaches, and records how they end. It outlives the daemon that started it.
#![cfg_attr(not(test), no_main)]
#![cfg_attr(test, allow(dead_code, reason = "the entry is left out under test"))]

mod cgroup;
mod containers;
mod error;
mod execs;
mod init;
mod inside;
mod logs;
mod masks;
mod namespaces;
mod oom;
mod privileges;
mod records;
mod report;
mod requests;
mod rootfs;
mod selinux;
mod server;
mod spec;
mod stage;
mod starts;
mod stat;
mod streams;
mod sys;
mod template;
mod user;
mod wire;
mod worker;

#[cfg(not(test))]
use std::ffi::{CStr, c_char, c_int};

/// The process's entry. Not std's: that opens /dev/null for closed standard descriptors, which the
/// pod's init has not.
#[cfg(not(test))]
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, values: *const *const c_char) -> c_int {
    let count = usize::try_from(count).unwrap_or(0);
    let args: Vec<String> = (0..count)
        .map(|index| {
            // SAFETY: the C runtime passes `count` pointers to C strings that live as long as the process.
            unsafe { CStr::from_ptr(*values.add(index)) }
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    match args.first().map(String::as_str) {
        Some("joey-init") => init::run(),
        _ => server::run(&args),
    }
}
