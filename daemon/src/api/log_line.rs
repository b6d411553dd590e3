//! One entry of a log file: `<time> stdout|stderr F|P <text>`, P where the line goes on.

/// An entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// As in the file, RFC 3339 with nanoseconds.
    pub time: &'a str,
    /// From standard error.
    pub stderr: bool,
    /// The line goes on in the next entry of the stream.
    pub partial: bool,
    /// Without the newline.
    pub text: &'a [u8],
}

/// Reads an entry without its newline; None where it is none.
pub fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stderr = match parts.next()? {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    let partial = match parts.next()? {
        b"F" => false,
        b"P" => true,
        _ => return None,
    };
    Some(Entry {
        time,
        stderr,
        partial,
        text: parts.next()?,
    })
}

/// Nanoseconds since the epoch of an RFC 3339 time; None where it is none.
pub fn nanoseconds(time: &str) -> Option<i64> {
    chrono::DateTime::parse_from_rfc3339(time)
        .ok()?
        .timestamp_nanos_opt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read() {
        let line = b"2026-11-21T09:00:00.000000001Z stderr P a b ";
        let entry = parse(line).unwrap();
        assert_eq!(entry.time, "2026-11-21T09:00:00.000000001Z");
        assert!(entry.stderr && entry.partial);
        assert_eq!(entry.text, b"a b ");
        assert_eq!(parse(b"t stdout F ").unwrap().text, b"");
        for broken in [
            &b""[..],
            b"t stdout F",
            b"t stdin F x",
            b"t stdout X x",
            b"\xff stdout F x",
        ] {
            assert_eq!(parse(broken), None);
        }
    }

    #[test]
    fn times_are_read() {
        for (time, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00.5Z", 500_000_000),
            ("2000-02-29T12:00:00.000000001Z", 951_825_600_000_000_001),
            (
                "2000-02-29T14:00:00.000000001+02:00",
                951_825_600_000_000_001,
            ),
            ("2026-11-21T08:43:22Z", 1_795_250_602_000_000_000),
            ("1969-12-31T23:59:59Z", -1_000_000_000),
        ] {
            assert_eq!(nanoseconds(time), Some(expected), "{time}");
        }
        for broken in [
            "",
            "now",
            "2026-11-21",
            "2026-13-01T00:00:00Z",
            "2026-11-21T00:00:00",
            "2026-11-21T0:0Z",
        ] {
            assert_eq!(nanoseconds(broken), None, "{broken}");
        }
    }
}
