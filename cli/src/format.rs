//! Times, sizes and ids as people read them.

const NANOS: i64 = 1_000_000_000;

/// How long `from` … `to` (ns) is, in its largest unit: `5 minutes`.
pub fn span(from: i64, to: i64) -> String {
    let seconds = (to.saturating_sub(from) / NANOS).max(0);
    let units = [
        (365 * 86_400, "year"),
        (30 * 86_400, "month"),
        (7 * 86_400, "week"),
        (86_400, "day"),
        (3600, "hour"),
        (60, "minute"),
    ];
    // Up to two of a unit the smaller one says more.
    let found = units.iter().find(|(length, _)| seconds >= 2 * length);
    let (count, unit) = match found {
        Some((length, unit)) => (seconds / length, *unit),
        None if seconds >= 60 => (seconds / 60, "minute"),
        None => (seconds, "second"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// `12.3 MB`, in steps of 1,000.
pub fn bytes(bytes: u64) -> String {
    let units = [
        (1_000_000_000_000, "TB"),
        (1_000_000_000, "GB"),
        (1_000_000, "MB"),
        (1000, "kB"),
    ];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(*unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

/// The part of an id that people use, without its algorithm.
pub fn short(id: &str, length: usize) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..length).unwrap_or(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (seconds, text) in [
            (-5, "0 seconds"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "1 minute"),
            (119, "1 minute"),
            (300, "5 minutes"),
            (3600, "60 minutes"),
            (7200, "2 hours"),
            (3 * 86_400, "3 days"),
            (21 * 86_400, "3 weeks"),
            (800 * 86_400, "2 years"),
        ] {
            assert_eq!(span(0, seconds * NANOS), text, "{seconds}");
        }
    }

    #[test]
    fn sizes_and_ids() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_550), "1.5 kB");
        assert_eq!(bytes(4_290_000), "4.2 MB");
        assert_eq!(bytes(u64::MAX), "18446744.0 TB");
        assert_eq!(short("sha256:0123456789", 4), "0123");
        assert_eq!(short("01", 4), "01");
    }
}
