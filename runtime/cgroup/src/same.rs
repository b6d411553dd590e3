//! Whether a file of a group has a wanted value already, in whichever words the kernel says it.

use std::collections::BTreeSet;

use crate::files;
use crate::plan::{Restore, Write};
use crate::read_back::V1_UNLIMITED;

/// Whether the write would change nothing. A file that can't be read says no.
pub(crate) fn is_in_force(write: &Write) -> bool {
    let Ok(content) = files::read(&write.path) else {
        return false;
    };
    match &write.restore {
        Restore::Content => same(&write.controller, &content, &write.value),
        Restore::Line { key, default } => {
            let line = content
                .lines()
                .find(|line| line.split(' ').next() == Some(key));
            has_words(line.unwrap_or(default), &write.value)
        }
    }
}

fn same(controller: &str, content: &str, value: &str) -> bool {
    if content == value {
        return true;
    }
    match controller {
        "cpuset" => list(content).is_some_and(|set| Some(set) == list(value)),
        "memory" => bytes(content)
            .zip(bytes(value))
            .is_some_and(|(kept, asked)| is_rounded(kept, asked)),
        // `cpu.max` holds quota and period; one of them may be wanted alone.
        "cpu" => !value.contains(' ') && content.split(' ').next() == Some(value),
        _ => false,
    }
}

/// A limit in bytes; "none" is a huge number on v1.
fn bytes(text: &str) -> Option<u64> {
    if text == "-1" || text == "max" {
        return Some(u64::MAX);
    }
    let number: u64 = text.parse().ok()?;
    Some(if number >= V1_UNLIMITED {
        u64::MAX
    } else {
        number
    })
}

/// Whether `kept` is what the kernel makes of `asked`: whole pages, of whichever size.
pub(crate) fn is_rounded(kept: u64, asked: u64) -> bool {
    const PAGES: [u64; 3] = [4 << 10, 16 << 10, 64 << 10];
    let whole_pages = |page: &u64| asked >= *page && asked / page * page == kept;
    kept == asked || PAGES.iter().any(whole_pages)
}

/// `0-2,4`; none where it is no list.
pub(crate) fn list(text: &str) -> Option<BTreeSet<u32>> {
    const MOST: u32 = 1 << 16;
    let mut set = BTreeSet::new();
    for range in text.trim().split(',').filter(|range| !range.is_empty()) {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to): (u32, u32) = (from.parse().ok()?, to.parse().ok()?);
        if to > MOST {
            return None;
        }
        set.extend(from..=to);
    }
    Some(set)
}

/// `8:0 wbps=1000` of `8:0 rbps=max wbps=1000`.
fn has_words(line: &str, wanted: &str) -> bool {
    let words: BTreeSet<&str> = line.split(' ').collect();
    wanted.split(' ').all(|word| words.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_for_a_value_are_known() {
        for (controller, content, value) in [
            ("memory", "9223372036854771712", "-1"),
            ("memory", "max", "max"),
            ("memory", "4096", "5000"),
            ("cpuset", "0-3", "0,1,2-3"),
            ("cpu", "max 100000", "max"),
            ("pids", "max", "max"),
        ] {
            assert!(same(controller, content, value), "{content} {value}");
        }
        for (controller, content, value) in [
            ("memory", "4096", "9000"),
            ("memory", "4096", "-1"),
            ("memory", "0", "60"),
            ("cpuset", "0-3", "0-2"),
            ("cpu", "5000 100000", "max"),
            ("cpu", "5000 100000", "5000 50000"),
            ("pids", "max", "7"),
        ] {
            assert!(!same(controller, content, value), "{content} {value}");
        }
    }

    #[test]
    fn lines_are_those_of_their_device() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("io.max");
        std::fs::write(&path, "8:0 rbps=max wbps=7\n8:16 rbps=9 wbps=max\n").unwrap();
        let is = |value: &str| {
            let write = Write::new("io", path.clone(), value);
            is_in_force(&write.line("8:16".into(), "8:16 rbps=max wbps=max".into()))
        };
        assert!(is("8:16 rbps=9") && !is("8:16 rbps=7"));
        let gone = Write::new("io", path.clone(), "8:32 rbps=max");
        assert!(is_in_force(
            &gone.line("8:32".into(), "8:32 rbps=max wbps=max".into())
        ));
    }
}
