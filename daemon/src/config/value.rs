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

/// A number of bytes, written as `0`, `64KiB`, `10MiB` or `1GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(u64);

/// A text that is no size.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} is no size: write a number and KiB, MiB or GiB, or 0")]
pub struct BadSize(String);

const SIZE_UNITS: [(u32, &str); 3] = [(30, "GiB"), (20, "MiB"), (10, "KiB")];

impl Size {
    /// So many MiB.
    #[must_use]
    pub const fn mebibytes(count: u32) -> Self {
        Self((count as u64) << 20)
    }

    /// Bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = BadSize;

    fn from_str(text: &str) -> Result<Self, BadSize> {
        let bad = || BadSize(text.to_owned());
        if text == "0" {
            return Ok(Self(0));
        }
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| bad())?;
        let (shift, _) = SIZE_UNITS
            .iter()
            .find(|(_, name)| *name == unit)
            .ok_or_else(bad)?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(bad)
    }
}

impl TryFrom<String> for Size {
    type Error = BadSize;

    fn try_from(text: String) -> Result<Self, BadSize> {
        text.parse()
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.to_string()
    }
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Sizes are made of whole units.
        let unit = SIZE_UNITS
            .iter()
            .find(|(shift, _)| self.0 > 0 && self.0.is_multiple_of(1 << shift));
        match unit {
            Some((shift, name)) => write!(formatter, "{}{name}", self.0 >> shift),
            None => write!(formatter, "{}", self.0),
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
    fn sizes_are_read_and_written() {
        for (text, bytes) in [("0", 0), ("64KiB", 65_536), ("10MiB", 10 << 20)] {
            let size: Size = text.parse().unwrap();
            assert_eq!(size.bytes(), bytes);
            assert_eq!(size.to_string(), text);
        }
        assert_eq!("1024KiB".parse::<Size>().unwrap().to_string(), "1MiB");
        for text in ["", "1", "-1KiB", "1MB", "1.5MiB", "99999999999999999GiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
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
