//! The text formats of the counters.

use crate::files;

/// Lines of `key number`.
pub(super) struct Keyed<'a>(&'a [u8]);

impl<'a> Keyed<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self(text)
    }

    pub(super) fn pairs(&self) -> impl Iterator<Item = (&'a [u8], u64)> {
        self.0.split(|b| *b == b'\n').filter_map(|line| {
            let at = line.iter().position(|b| *b == b' ')?;
            Some((&line[..at], files::number(&line[at + 1..])?))
        })
    }

    pub(super) fn get(&self, key: &str) -> Option<u64> {
        self.pairs()
            .find_map(|(k, value)| (k == key.as_bytes()).then_some(value))
    }
}

/// How long processes waited for a resource.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// At least one waited.
    pub some: PressureTimes,
    /// All did.
    pub full: PressureTimes,
}

/// One line of a pressure file.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PressureTimes {
    /// ns.
    pub total_ns: u64,
    /// Per cent of the last 10 s.
    pub avg10: f64,
    /// Per cent of the last minute.
    pub avg60: f64,
    /// Per cent of the last 5 minutes.
    pub avg300: f64,
}

/// A pressure file; totals are µs there.
pub(super) fn pressure(text: &str) -> Option<Pressure> {
    let mut found = Pressure::default();
    let mut any = false;
    for line in text.lines() {
        let mut fields = line.split(' ');
        let times = match fields.next()? {
            "some" => &mut found.some,
            "full" => &mut found.full,
            _ => continue,
        };
        for field in fields {
            let (key, value) = field.split_once('=')?;
            match key {
                "avg10" => times.avg10 = value.parse().ok()?,
                "avg60" => times.avg60 = value.parse().ok()?,
                "avg300" => times.avg300 = value.parse().ok()?,
                "total" => times.total_ns = value.parse::<u64>().ok()?.saturating_mul(1000),
                _ => {}
            }
        }
        any = true;
    }
    any.then_some(found)
}

/// `8:16` at the beginning of a line.
pub(super) fn device(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_matched_whole() {
        let keyed = Keyed::new(b"oom 1\noom_kill 7\noom_group_kill 0\nbroken\n");
        assert_eq!(keyed.get("oom_kill"), Some(7));
        assert_eq!(keyed.get("oom"), Some(1));
        assert_eq!(keyed.get("broken"), None);
    }

    #[test]
    fn pressure_totals_become_nanoseconds() {
        let text = "some avg10=4.36 avg60=8.37 avg300=13.35 total=123\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=5";
        let found = pressure(text).unwrap();
        assert_eq!(found.some.total_ns, 123_000);
        assert_eq!(found.full.total_ns, 5_000);
        assert!((found.some.avg60 - 8.37).abs() < 1e-9);
        assert_eq!(pressure(""), None);
        assert_eq!(pressure("some avg10=x"), None);
    }
}
