//! What the kernel's log says of processes that it killed for want of memory.
//!
//! A line of it (mm/oom_kill.c, dump_oom_summary) names the group whose limit was reached, the
//! victim's own group and the victim: counters of a cgroup only tell that there was one.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use joey_cgroup::Group;

use crate::model::{OomGroup, OomKill, Victim};

/// One record of the log has at most 8 KiB (printk's CONSOLE_EXT_LOG_MAX).
const RECORD_BYTES: usize = 8 << 10;
/// More lines than any ring has: a log that never ends is not read for ever.
const MOST_RECORDS: usize = 1 << 17;
const MOST_VICTIMS: usize = 16;

/// A victim as a line names it.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    /// None: the node's memory.
    limited: Option<&'a str>,
    task: &'a str,
    name: &'a str,
    pid: i32,
}

/// Adds what can be known to what was counted. Blocks for the time it takes to read the log.
pub(super) fn look(group: &Group, init: i32, mut told: OomKill) -> OomKill {
    let own = group.path();
    let log = read_log().unwrap_or_default();
    let lines: Vec<Line<'_>> = log
        .iter()
        .filter_map(|record| parse(record))
        .filter(|line| Path::new(line.task).starts_with(&own))
        .collect();
    // Of a former life under the same id the log has lines too.
    let count = usize::try_from(told.kills_after.saturating_sub(told.kills_before)).unwrap_or(0);
    let lines = &lines[lines.len().saturating_sub(count)..];
    told.victims = lines
        .iter()
        .take(MOST_VICTIMS)
        .map(|line| Victim {
            pid: line.pid,
            name: line.name.to_owned(),
            init: line.pid == init,
        })
        .collect();
    let Some(last) = lines.last() else {
        return unlogged(group, told);
    };
    let Some(limited) = last.limited.map(Path::new) else {
        told.group = OomGroup::Node;
        return told;
    };
    told.group = if limited.starts_with(&own) {
        OomGroup::Container
    } else if Some(limited) == own.parent() {
        OomGroup::Pod
    } else {
        OomGroup::Above
    };
    told.path = limited.to_string_lossy().into_owned();
    let account = group.memory_account_of(limited);
    (told.limit, told.usage) = (account.limit, account.usage);
    told
}

/// Without a line in the log: a group that came up to its limit is whose memory ran out.
fn unlogged(group: &Group, mut told: OomKill) -> OomKill {
    // What was reclaimed just before the kill is not in the peak.
    const NEARLY: u64 = 1 << 20;
    let account = group.memory_account();
    let reached = account
        .limit
        .zip(account.usage)
        .is_some_and(|(limit, usage)| usage.saturating_add(NEARLY) >= limit);
    if reached {
        told.group = OomGroup::Container;
        told.path = group.path().to_string_lossy().into_owned();
    }
    (told.limit, told.usage) = (account.limit, account.usage);
    told
}

/// The records of the log that are about victims; each read gives one.
fn read_log() -> std::io::Result<Vec<String>> {
    let mut log = std::fs::File::options()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open("/dev/kmsg")?;
    let mut buffer = vec![0; RECORD_BYTES];
    let mut found = Vec::new();
    for _ in 0..MOST_RECORDS {
        match log.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                let record = String::from_utf8_lossy(&buffer[..length]);
                if record.contains(";oom-kill:") {
                    found.push(record.into_owned());
                }
            }
            // EPIPE: overwritten while it was read; the next read goes on behind that.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    Ok(found)
}

fn parse(record: &str) -> Option<Line<'_>> {
    let (_, text) = record.split_once(";oom-kill:")?;
    let text = text.lines().next()?;
    // A program's name may hold commas: what is before it is split at them, what is behind counted
    // from the end.
    let (groups, task) = text.split_once(",task=")?;
    let (name, pid) = task.rsplit_once(",uid=")?.0.rsplit_once(",pid=")?;
    let of = |key: &str| groups.split(',').find_map(|field| field.strip_prefix(key));
    Some(Line {
        limited: of("oom_memcg="),
        task: of("task_memcg=")?,
        name,
        pid: pid.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_log_are_read() {
        let of_a_group = "6,509,1507,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),\
             cpuset=abc,mems_allowed=0,oom_memcg=/pods/pod1,task_memcg=/pods/pod1/abc,task=a,b,\
             pid=22261,uid=0\n SUBSYSTEM=x\n";
        assert_eq!(
            parse(of_a_group),
            Some(Line {
                limited: Some("/pods/pod1"),
                task: "/pods/pod1/abc",
                name: "a,b",
                pid: 22261,
            })
        );
        let of_the_node = "6,1,1,-;oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),\
             cpuset=abc,mems_allowed=0,global_oom,task_memcg=/pods/pod1/abc,task=x,pid=7,uid=0";
        assert_eq!(parse(of_the_node).unwrap().limited, None);
        for other in [
            "6,1,1,-;eth0: up",
            "6,1,1,-;oom-kill:",
            "",
            "oom-kill:task=a",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
