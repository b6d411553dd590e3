//! Versions of the CNI specification.

use std::fmt;
use std::str::FromStr;

/// A version: major, minor, patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u16, u16, u16);

impl Version {
    /// Of configurations that state none.
    pub(crate) const DEFAULT: Self = Self(0, 2, 0);
    /// The newest we know.
    pub(crate) const NEWEST: Self = Self(1, 1, 0);
    /// Has CHECK, and DEL gets the result.
    pub(crate) const CHECK: Self = Self(0, 4, 0);
    /// Has STATUS and GC.
    pub(crate) const STATUS_AND_GC: Self = Self(1, 1, 0);
    /// Results are lists of interfaces and addresses.
    pub(crate) const LISTS: Self = Self(0, 3, 0);
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::DEFAULT);
        }
        let mut parts = text.splitn(3, '.').map(|part| part.parse::<u16>().ok());
        match (
            parts.next().flatten(),
            parts.next().flatten(),
            parts.next().flatten(),
        ) {
            (Some(major), Some(minor), Some(patch)) => Ok(Self(major, minor, patch)),
            _ => Err(format!("{text:?} is no CNI version")),
        }
    }
}
