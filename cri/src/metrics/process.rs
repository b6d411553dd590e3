//! What is known of processes only through `/proc`.

use super::descriptors as metric;
use super::samples::Samples;

/// Descriptors held by the processes of a container.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Held {
    descriptors: u64,
    sockets: u64,
}

impl Samples<'_> {
    /// Processes that end meanwhile are passed over.
    pub(super) fn processes(&mut self, pids: &[i32]) {
        let mut held = Held::default();
        for pid in pids {
            let Held {
                descriptors,
                sockets,
            } = held_by(*pid);
            held.descriptors += descriptors;
            held.sockets += sockets;
        }
        self.add(
            &metric::PROCESSES,
            &[],
            u64::try_from(pids.len()).unwrap_or(u64::MAX),
        );
        self.add(&metric::FILE_DESCRIPTORS, &[], held.descriptors);
        self.add(&metric::SOCKETS, &[], held.sockets);
    }

    /// The limit on open files; an unlimited one is not told, as the values can't be negative.
    pub(super) fn limits(&mut self, pid: i32) {
        let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
        if let Some(limit) = open_files(&text) {
            self.add(&metric::ULIMITS_SOFT, &["max_open_files"], limit);
        }
    }
}

fn held_by(pid: i32) -> Held {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Held::default();
    };
    let mut held = Held::default();
    for entry in entries.flatten() {
        held.descriptors += 1;
        let target = std::fs::read_link(entry.path());
        if target.is_ok_and(|target| target.to_string_lossy().starts_with("socket:")) {
            held.sockets += 1;
        }
    }
    held
}

/// The soft limit in the text of `/proc/PID/limits`.
fn open_files(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_the_first_number() {
        let text = "Limit  Soft Limit  Hard Limit  Units\n\
                    Max processes     unlimited   unlimited   processes\n\
                    Max open files    1024        524288      files\n";
        assert_eq!(open_files(text), Some(1024));
        assert_eq!(
            open_files("Max open files    unlimited   unlimited   files"),
            None
        );
        assert_eq!(open_files(""), None);
    }

    #[test]
    fn sockets_are_told_from_other_descriptors() {
        let own = i32::try_from(std::process::id()).unwrap();
        let before = held_by(own);
        let _pair = std::os::unix::net::UnixStream::pair().unwrap();
        let after = held_by(own);
        assert!(after.sockets >= before.sockets + 2);
        assert!(after.descriptors >= after.sockets);
        assert_eq!(held_by(-1), Held::default());
    }
}
