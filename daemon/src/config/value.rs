//! Values with a unit.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A span of time, written as `500ms`, `10s`, `5m` or `4h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timespan(Duration);

/// A text that is no span of time.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} is no time: write a number and ms, s, m or h")]
pub struct BadTimespan(String);

impl Timespan {
    /// A span of whole seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// As the standard library has it.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Timespan {
    type Err = BadTimespan;

    fn from_str(text: &str) -> Result<Self, BadTimespan> {
        let bad = || BadTimespan(text.to_owned());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| bad())?;
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(bad()),
        };
        Ok(Self(Duration::from_millis(
            number.checked_mul(milliseconds).ok_or_else(bad)?,
        )))
    }
}

impl TryFrom<String> for Timespan {
    type Error = BadTimespan;

    fn try_from(text: String) -> Result<Self, BadTimespan> {
        text.parse()
    }
}

impl From<Timespan> for String {
    fn from(span: Timespan) -> Self {
        span.to_string()
    }
}

impl fmt::Display for Timespan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        let units = [(3_600_000, "h"), (60_000, "m"), (1000, "s")];
        match units
            .iter()
            .find(|(unit, _)| milliseconds >= *unit && milliseconds.is_multiple_of(*unit))
        {
            Some((unit, name)) => write!(formatter, "{}{name}", milliseconds / unit),
            None => write!(formatter, "{milliseconds}ms"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_written() {
        for (text, milliseconds) in [
            ("0ms", 0),
            ("500ms", 500),
            ("10s", 10_000),
            ("4h", 14_400_000),
        ] {
            let span: Timespan = text.parse().unwrap();
            assert_eq!(span.duration(), Duration::from_millis(milliseconds));
            assert_eq!(span.to_string(), text);
        }
        assert_eq!("90s".parse::<Timespan>().unwrap().to_string(), "90s");
        assert_eq!("120s".parse::<Timespan>().unwrap().to_string(), "2m");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "10",
            "s",
            "-1s",
            "1d",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(text.parse::<Timespan>().is_err(), "{text}");
        }
    }
}
