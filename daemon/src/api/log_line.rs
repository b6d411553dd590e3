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
    let (date, clock) = time.split_once('T')?;
    let [year, month, day] = numbers(date, '-')?;
    let zone_at = clock.find(['Z', '+', '-'])?;
    let (clock, zone) = clock.split_at(zone_at);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [hour, minute, second] = numbers(clock, ':')?;
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60;
    if !in_range || second > 60 || fraction.len() > 9 {
        return None;
    }
    let fraction: i64 = format!("{fraction:0<9}").parse().ok()?;
    let seconds =
        days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset(zone)?;
    seconds.checked_mul(1_000_000_000)?.checked_add(fraction)
}

fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let mut parts = text
        .split(separator)
        .map(|part| part.parse::<u16>().map(i64::from).ok());
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(numbers)
}

/// Seconds east of Greenwich.
fn offset(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let (sign, rest) = zone.split_at(1);
    let (hours, minutes) = rest.split_once(':')?;
    let seconds =
        i64::from(hours.parse::<u8>().ok()?) * 3600 + i64::from(minutes.parse::<u8>().ok()?) * 60;
    Some(if sign == "-" { -seconds } else { seconds })
}

/// Days from 1970-01-01 in the Gregorian calendar; a year begins in March for this count.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
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
