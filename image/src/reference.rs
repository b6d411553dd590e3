//! Image references: parsing and the one normal form.
//!
//! The grammar is that of the distribution project (`distribution/reference`): an optional host, a
//! path of lower-case components, an optional tag, an optional digest. Docker's short forms are
//! filled in: no host means `docker.io`, a single path component there gets `library/`, neither tag
//! nor digest means `:latest`. With both a tag and a digest the digest says what is meant and the
//! tag is dropped.

use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, DigestError};

const DEFAULT_HOST: &str = "docker.io";
const MAX_REPOSITORY: usize = 255;
const MAX_TAG: usize = 128;

/// What a reference points to in its repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// A name that may move to another image.
    Tag(String),
    /// Exactly one manifest or index.
    Digest(Digest),
}

/// A normalised image reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    host: String,
    path: String,
    target: Target,
}

/// A string that is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid image reference {reference:?}: {reason}")]
pub struct ReferenceError {
    reference: String,
    reason: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Reason {
    #[error("it is empty")]
    Empty,
    #[error("the host {0:?} is malformed")]
    Host(String),
    #[error("the repository {0:?} must be lower-case letters, digits and separators")]
    Repository(String),
    #[error("the repository is longer than {MAX_REPOSITORY} characters")]
    TooLong,
    #[error("64 hex digits alone are an image ID, not a repository")]
    LooksLikeId,
    #[error("the tag {0:?} is malformed")]
    Tag(String),
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl Reference {
    /// The registry's host with its port where one is given, `docker.io` for Docker Hub.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository's path at its registry, without the host.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Tag or digest.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Host and path.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }

    /// The same repository with another target.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            target: Target::Digest(digest),
            ..self.clone()
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Tag(tag) => write!(f, "{}/{}:{tag}", self.host, self.path),
            Target::Digest(digest) => write!(f, "{}/{}@{digest}", self.host, self.path),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        parse(text).map_err(|reason| ReferenceError {
            reference: text.to_owned(),
            reason,
        })
    }
}

fn parse(text: &str) -> Result<Reference, Reason> {
    if text.is_empty() {
        return Err(Reason::Empty);
    }
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest.parse::<Digest>()?)),
        None => (text, None),
    };
    // A colon after the last slash starts the tag; one before it belongs to the port.
    let (name, tag) = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (name, None),
    };
    if digest.is_none() && tag.is_none() && Digest::from_hex(name).is_ok() {
        return Err(Reason::LooksLikeId);
    }
    let (host, path) = split_host(name);
    check_host(&host)?;
    check_path(&path)?;
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let target = match (digest, tag) {
        (Some(digest), _) => Target::Digest(digest),
        (None, tag) => Target::Tag(tag.unwrap_or("latest").to_owned()),
    };
    Ok(Reference { host, path, target })
}

/// The first component is a host only if it can be nothing else: it has a dot or a port, is
/// `localhost`, or has upper-case letters, which a path must not have.
fn split_host(name: &str) -> (String, String) {
    let (host, path) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.chars().any(|c| c.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_HOST, name),
    };
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => DEFAULT_HOST,
        other => other,
    };
    if host == DEFAULT_HOST && !path.contains('/') {
        (host.to_owned(), format!("library/{path}"))
    } else {
        (host.to_owned(), path.to_owned())
    }
}

fn check_host(host: &str) -> Result<(), Reason> {
    let malformed = || Reason::Host(host.to_owned());
    let (name, port) = if let Some(rest) = host.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or_else(malformed)?;
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(malformed());
        }
        match port.strip_prefix(':') {
            Some(port) => (None, Some(port)),
            None if port.is_empty() => (None, None),
            None => return Err(malformed()),
        }
    } else {
        match host.split_once(':') {
            Some((name, port)) => (Some(name), Some(port)),
            None => (Some(host), None),
        }
    };
    let label_ok = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if name.is_some_and(|name| name.len() > 253 || !name.split('.').all(label_ok)) {
        return Err(malformed());
    }
    if port.is_some_and(|port| port.parse::<u16>().is_err() || port.starts_with('+')) {
        return Err(malformed());
    }
    Ok(())
}

fn check_path(path: &str) -> Result<(), Reason> {
    if path.len() > MAX_REPOSITORY {
        return Err(Reason::TooLong);
    }
    if path.split('/').all(component_ok) {
        Ok(())
    } else {
        Err(Reason::Repository(path.to_owned()))
    }
}

/// Runs of letters and digits, parted by one dot, one or two underscores, or any number of hyphens.
fn component_ok(component: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !component.starts_with(alphanumeric) || !component.ends_with(alphanumeric) {
        return false;
    }
    component
        .split(alphanumeric)
        .filter(|separator| !separator.is_empty())
        .all(|separator| {
            matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

fn check_tag(tag: &str) -> Result<(), Reason> {
    let first_ok = tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let rest_ok = tag
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if first_ok && rest_ok && tag.len() <= MAX_TAG {
        Ok(())
    } else {
        Err(Reason::Tag(tag.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn normal(text: &str) -> String {
        text.parse::<Reference>().unwrap().to_string()
    }

    #[test]
    fn short_forms_are_filled_in() {
        for (text, want) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("user/app", "docker.io/user/app:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            ("index.docker.io/library/a", "docker.io/library/a:latest"),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a/b:t", "localhost:5000/a/b:t"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("a__b/c-d.e--f", "docker.io/a__b/c-d.e--f:latest"),
        ] {
            assert_eq!(normal(text), want);
            assert_eq!(normal(want), want, "the normal form is stable");
        }
    }

    #[test]
    fn the_digest_wins_over_the_tag() {
        assert_eq!(
            normal(&format!("busybox:1.36@sha256:{HEX}")),
            format!("docker.io/library/busybox@sha256:{HEX}")
        );
    }

    #[test]
    fn malformed_references_are_refused_by_name() {
        for bad in [
            "",
            HEX,
            "Busybox",
            "busybox:",
            "busybox:-x",
            "busybox@sha256:12",
            "busybox@sha512:12",
            "a//b",
            "../../etc/passwd",
            "a/../b",
            "-a/b.c",
            "ex ample.com/a",
            "host.io:99999/a",
            "a___b",
            "a..b",
            "a\n",
        ] {
            let error = bad.parse::<Reference>().unwrap_err();
            assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
        }
        "a".repeat(300).parse::<Reference>().unwrap_err();
        format!("a:{}", "t".repeat(129))
            .parse::<Reference>()
            .unwrap_err();
    }
}
