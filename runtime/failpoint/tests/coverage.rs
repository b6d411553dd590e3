//! A change of state that no failpoint stands in front of cannot be tested: the sources are read
//! for calls that make one, and a function with such a call must pass a point or be listed here.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Where the paths of pods, containers and images lead.
const SOURCES: [&str; 6] = [
    "runtime/src",
    "runtime/cgroup/src",
    "runtime/network/src",
    "runtime/shim-client/src",
    "image/src",
    "shim/src",
];

/// Calls that write, remove, mount, make processes or namespaces, or ask the kernel for a change.
const CHANGES: &[&str] = &[
    "fs::write(",
    "fs::rename(",
    "fs::remove_file(",
    "fs::remove_dir(",
    "fs::remove_dir_all(",
    "joey_removal::remove",
    "fs::create_dir(",
    "fs::create_dir_all(",
    "fs::rmdir(",
    "fs::hard_link(",
    "fs::symlink(",
    "File::create(",
    "File::create_new(",
    ".create(true)",
    ".write(true)",
    ".append(true)",
    "mount_bind(",
    "mount_change(",
    "move_mount(",
    "open_tree(",
    "fsopen(",
    "unmount(",
    " mount(",
    "net::send(",
    "Command::new(",
    "libc::fork(",
    "SYS_clone3",
    "SYS_mount_setattr",
    "libc::unshare(",
    "libc::setns(",
    "libc::execve(",
    ".call_method(",
    "mkdirat(",
    "mknodat(",
    "symlinkat(",
    "linkat(",
    "unlinkat(",
    "renameat(",
    "OFlags::CREATE",
    "pwrite(",
    "ftruncate(",
    "fchown(",
    "fsetxattr(",
    "lsetxattr(",
    "futimens(",
    "sethostname(",
];

/// Functions without a point, and why.
const WITHOUT: &[(&str, &str, &str)] = &[
    ("image/src/fuzzing.rs", "hosts", "for fuzzers"),
    (
        "image/src/unpack/metadata.rs",
        "set_xattr",
        "its callers pass one",
    ),
    ("shim/src/inside.rs", "attach_cgroups", MOUNT),
    ("shim/src/inside.rs", "mount_console", MOUNT),
    ("shim/src/inside.rs", "mount_point", MOUNT),
    ("shim/src/rootfs.rs", "overlay_by_path", MOUNT),
    ("shim/src/template.rs", "build", MOUNT),
    (
        "shim/src/namespaces.rs",
        "helper",
        "of a namespace, which goes with its pod",
    ),
    (
        "shim/src/stage.rs",
        "own_stdio",
        "of a pipe, which goes with its process",
    ),
    (
        "shim/src/starts.rs",
        "own",
        "of a pipe, which goes with its process",
    ),
    ("image/src/store/layout.rs", "create", START),
    ("image/src/store/layout.rs", "quarantine_file", START),
    ("image/src/store/open.rs", "lock", START),
    ("image/src/store/open.rs", "whole_files", START),
    (
        "runtime/cgroup/src/systemd.rs",
        "call",
        "its caller of the same name passes one",
    ),
    ("runtime/network/src/builtin/lease.rs", "open", START),
    ("runtime/network/src/builtin/lease.rs", "quarantine", START),
    (
        "runtime/network/src/cni/exec.rs",
        "command",
        "`talk` runs what it makes",
    ),
    ("runtime/network/src/cni/folder.rs", "open", START),
    ("runtime/network/src/cni/record.rs", "open", START),
    (
        "runtime/network/src/cni/state.rs",
        "remember",
        "of the node, not of an operation",
    ),
    ("runtime/network/src/network.rs", "open", START),
    ("runtime/src/apparmor.rs", "load", START),
    ("runtime/src/record.rs", "load", START),
    ("runtime/src/record.rs", "open", START),
    ("runtime/src/record.rs", "set_aside", START),
    ("runtime/src/runtime.rs", "open", START),
    ("shim/src/cgroup.rs", "open", "opens what `enter` writes"),
    (
        "shim/src/logs.rs",
        "rotate",
        "of a log, not of an operation",
    ),
    (
        "shim/src/rootfs.rs",
        "overlay_by_context",
        "`overlay` passes one",
    ),
    (
        "shim/src/server.rs",
        "run",
        "tells why the shim could not start",
    ),
    (
        "shim/src/worker.rs",
        "limits",
        "a setting of the process itself",
    ),
];
/// The place of a mount in a file system of the pod's own.
const MOUNT: &str = "the mount that it is for passes one";
/// Before the daemon serves.
const START: &str = "at the start, before any operation";

/// A function's name and its text.
type Function<'a> = (&'a str, String);

/// The functions of a formatted source file, without its tests and comments.
fn functions(source: &str) -> Vec<Function<'_>> {
    let mut found: Vec<(&str, usize, String)> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    for line in source.lines() {
        if line.starts_with("#[cfg(test)]") {
            break;
        }
        let text = line.trim_start();
        if text.starts_with("//") {
            continue;
        }
        let indent = line.len() - text.len();
        let code = text.split(" // ").next().unwrap_or(text);
        if let Some(name) = function_name(code) {
            open.push(found.len());
            found.push((name, indent, String::new()));
        }
        if let Some(&at) = open.last() {
            found[at].2.push_str(code);
            found[at].2.push('\n');
            if indent == found[at].1 && (code == "}" || code.ends_with(';')) {
                open.pop();
            }
        }
    }
    let named = found.into_iter().map(|(name, _, text)| (name, text));
    named.collect()
}

fn function_name(code: &str) -> Option<&str> {
    let mut words = code.split([' ', '(', '<']).skip_while(|word| {
        word.starts_with("pub")
            || word.ends_with(')')
            || ["async", "unsafe", "const", "extern", "\"C\""].contains(word)
    });
    (words.next()? == "fn").then(|| words.next()).flatten()
}

/// The first change that a function makes without passing a point.
fn uncovered(text: &str) -> Option<&'static str> {
    let change = CHANGES.iter().find(|change| text.contains(**change))?;
    (!text.contains("joey_failpoint::hit(")).then_some(change)
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "tests" {
                rust_files(&path, files);
            }
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            files.push(path);
        }
    }
}

#[test]
fn every_change_of_state_has_a_failpoint() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut bare = BTreeSet::new();
    for folder in SOURCES {
        let mut files = Vec::new();
        rust_files(&root.join(folder), &mut files);
        assert!(!files.is_empty(), "{folder}");
        for path in files {
            let source = std::fs::read_to_string(&path).unwrap();
            let file = path.strip_prefix(&root).unwrap().display().to_string();
            for (name, text) in functions(&source) {
                if let Some(change) = uncovered(&text) {
                    bare.insert((file.clone(), name.to_owned(), change));
                }
            }
        }
    }
    let listed = |file: &str, name: &str| {
        WITHOUT
            .iter()
            .any(|(other, function, _)| (*other, *function) == (file, name))
    };
    let new: Vec<_> = bare
        .iter()
        .filter(|(file, name, _)| !listed(file, name))
        .collect();
    assert!(new.is_empty(), "these pass no failpoint: {new:#?}");
    let stale: Vec<_> = WITHOUT
        .iter()
        .filter(|(file, name, _)| {
            !bare
                .iter()
                .any(|(other, function, _)| other == file && function == name)
        })
        .collect();
    assert!(stale.is_empty(), "these need no exception: {stale:#?}");
}

#[test]
fn a_change_without_a_failpoint_is_found() {
    let source = "
impl Store {
    pub(crate) async fn save(&self) -> io::Result<()> {
        fs::write(&self.temporary, b\"\")?;
        fs::rename(&self.temporary, &self.path)
    }

    // fs::rename(a, b)
    fn load(&self) {}

    fn remove(&self) -> io::Result<()> {
        joey_failpoint::hit(\"record.remove\")?;
        fs::remove_file(&self.path)
    }
}
#[cfg(test)]
fn setup() {
    fs::write(a, b);
}
";
    let found: Vec<_> = functions(source)
        .into_iter()
        .map(|(name, text)| (name, uncovered(&text)))
        .collect();
    assert_eq!(
        found,
        [
            ("save", Some("fs::write(")),
            ("load", None),
            ("remove", None)
        ]
    );
}
