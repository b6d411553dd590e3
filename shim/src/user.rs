//! Who the process runs as, resolved from the container's own /etc/passwd and /etc/group.

use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use joey_proto::shim::User;

use crate::error::{Failure, Result, Step};

/// The most that is read of a container's passwd or group file, bytes.
const MAX_FILE: u64 = 4 << 20;

/// A resolved user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The user id.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// Every group, the primary one first.
    pub groups: Vec<u32>,
    /// The home folder of passwd, "/" without.
    pub home: String,
}

/// Resolves `user` from the files of the root that this process is in.
pub fn resolve(user: &User) -> Result<Resolved> {
    resolve_from(user, &read("/etc/passwd")?, &read("/etc/group")?)
}

/// Reads a file of the container: bounded, and never waiting for a fifo.
fn read(path: &str) -> Result<String> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let Ok(file) = fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
    else {
        return Ok(String::new());
    };
    if !file
        .metadata()
        .step_with(|| format!("look at {path}"))?
        .is_file()
    {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE)
        .read_to_end(&mut bytes)
        .step_with(|| format!("read {path}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn passwd(text: &str) -> impl Iterator<Item = Entry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields
            .next()
            .filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Entry {
            name,
            uid,
            gid,
            home: fields.nth(1).unwrap_or(""),
        })
    })
}

/// Name, id and members.
fn group(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields
            .next()
            .filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or("")))
    })
}

fn in_range(id: i64, what: &str) -> Result<u32> {
    u32::try_from(id)
        .ok()
        .filter(|&id| id != u32::MAX)
        .ok_or_else(|| Failure::with_errno(libc::EINVAL, format!("{what} {id} is out of range")))
}

fn resolve_from(user: &User, passwd_text: &str, group_text: &str) -> Result<Resolved> {
    let (user_part, group_part) = match user.name.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (user.name.as_str(), None),
    };
    let (entry, uid) = if user.name.is_empty() {
        let uid = in_range(user.uid, "user id")?;
        (passwd(passwd_text).find(|entry| entry.uid == uid), uid)
    } else if let Some(entry) = passwd(passwd_text).find(|entry| entry.name == user_part) {
        let uid = in_range(entry.uid.into(), "user id")?;
        (Some(entry), uid)
    } else {
        let number = user_part.parse::<i64>().map_err(|_| {
            let message =
                format!("unable to find user {user_part}: no matching entries in passwd file");
            Failure::with_errno(libc::ENOENT, message)
        })?;
        let uid = in_range(number, "user id")?;
        (passwd(passwd_text).find(|entry| entry.uid == uid), uid)
    };
    let gid = if user.has_gid {
        in_range(user.gid, "group id")?
    } else if let Some(name) = group_part.filter(|name| !name.is_empty()) {
        find_group(name, group_text)?
    } else {
        let gid = entry.as_ref().map_or(0, |entry| entry.gid);
        in_range(gid.into(), "group id")?
    };
    let mut groups = vec![gid];
    let mut add = |gid: u32| {
        if !groups.contains(&gid) {
            groups.push(gid);
        }
    };
    if let Some(entry) = entry.as_ref().filter(|_| !user.strict_groups) {
        for (_, gid, members) in group(group_text) {
            if members.split(',').any(|member| member.trim() == entry.name) {
                add(gid);
            }
        }
    }
    for &gid in &user.additional_gids {
        add(in_range(gid, "supplementary group id")?);
    }
    let home = entry
        .map(|entry| entry.home)
        .filter(|home| !home.is_empty())
        .unwrap_or("/")
        .to_owned();
    Ok(Resolved {
        uid,
        gid,
        groups,
        home,
    })
}

fn find_group(name: &str, text: &str) -> Result<u32> {
    if let Some((_, gid, _)) = group(text).find(|(other, ..)| *other == name) {
        return Ok(gid);
    }
    let number = name.parse::<i64>().map_err(|_| {
        let message = format!("unable to find group {name}: no matching entries in group file");
        Failure::with_errno(libc::ENOENT, message)
    })?;
    in_range(number, "group id")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n# c\nbad\nann:x:1000:1001:Ann:/home/ann:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nann:x:1001:\nextra:x:50:bob,ann\nother:x:51:bob\n";

    #[test]
    fn an_entry_without_an_id_of_its_own_is_refused() {
        let (passwd, all) = (
            "all:x:4294967295:0:::\nteam:x:7:4294967295:::\n",
            named("all"),
        );
        resolve_from(&all, passwd, "").unwrap_err();
        resolve_from(&named("team"), passwd, "").unwrap_err();
    }

    fn named(name: &str) -> User {
        User {
            name: name.into(),
            ..User::default()
        }
    }

    fn ids(user: &User) -> (u32, u32, Vec<u32>) {
        let resolved = resolve_from(user, PASSWD, GROUP).unwrap();
        (resolved.uid, resolved.gid, resolved.groups)
    }

    #[test]
    fn a_name_brings_its_group_its_groups_and_its_home() {
        assert_eq!(ids(&named("ann")), (1000, 1001, vec![1001, 50]));
        assert_eq!(
            resolve_from(&named("ann"), PASSWD, GROUP).unwrap().home,
            "/home/ann"
        );
    }

    #[test]
    fn a_number_without_an_entry_has_group_zero() {
        assert_eq!(
            ids(&User {
                uid: 7,
                ..User::default()
            }),
            (7, 0, vec![0])
        );
        assert_eq!(ids(&named("7:extra")), (7, 50, vec![50]));
        assert_eq!(ids(&named("7:8")), (7, 8, vec![8]));
    }

    #[test]
    fn strict_leaves_the_images_groups_out() {
        let user = User {
            uid: 1000,
            strict_groups: true,
            additional_gids: vec![9, 1001],
            ..User::default()
        };
        assert_eq!(ids(&user), (1000, 1001, vec![1001, 9]));
    }

    #[test]
    fn unknown_names_and_numbers_out_of_range_are_refused() {
        for name in ["nobody", "ann:nogroup", "-1", "4294967295"] {
            let failure = resolve_from(&named(name), PASSWD, GROUP).unwrap_err();
            assert!(failure.errno != 0, "{name}: {failure}");
        }
    }
}
