//! Values on the command line.

use std::time::{SystemTime, UNIX_EPOCH};

const NANOS: i64 = 1_000_000_000;
/// Of a fraction.
const MAX_DIGITS: u32 = 18;

/// `-v`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// On the host.
    pub source: String,
    /// In the container.
    pub target: String,
    /// Not writable.
    pub readonly: bool,
}

/// `-p`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The host's address; empty: every one.
    pub ip: String,
    /// On the host.
    pub host: u16,
    /// In the container.
    pub container: u16,
    /// tcp, udp or sctp.
    pub protocol: String,
}

/// `SOURCE:TARGET[:ro]`; a relative source is one of the working folder.
pub fn volume(text: &str) -> Result<Volume, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts[..] {
        [source, target] => (source, target, "rw"),
        [source, target, mode] => (source, target, mode),
        _ => return Err("write SOURCE:TARGET or SOURCE:TARGET:ro".into()),
    };
    let readonly = match mode {
        "ro" => true,
        "rw" => false,
        other => return Err(format!("{other:?} is neither ro nor rw")),
    };
    if source.is_empty() || !target.starts_with('/') {
        return Err(format!("the target {target:?} is not absolute"));
    }
    if !source.starts_with(['/', '.']) {
        return Err(format!(
            "{source:?} is no path: write /{source} or ./{source}"
        ));
    }
    let source = std::path::absolute(source).map_err(|error| error.to_string())?;
    Ok(Volume {
        source: source.to_string_lossy().into_owned(),
        target: target.into(),
        readonly,
    })
}

/// `[IP:]HOST:CONTAINER[/PROTO]`.
pub fn port(text: &str) -> Result<Port, String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if !["tcp", "udp", "sctp"].contains(&protocol) {
        return Err(format!("{protocol:?} is none of tcp, udp and sctp"));
    }
    let (rest, container) = ports
        .rsplit_once(':')
        .ok_or("write HOST:CONTAINER, such as 8080:80")?;
    let (ip, host) = rest.rsplit_once(':').unwrap_or(("", rest));
    let ip = ip.trim_start_matches('[').trim_end_matches(']');
    if !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("{ip:?} is no address"));
    }
    let number = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("{text:?} is no port")),
    };
    Ok(Port {
        ip: ip.into(),
        host: number(host)?,
        container: number(container)?,
        protocol: protocol.into(),
    })
}

/// Bytes: a number, such as 1.5, with b, k, m, g or t, in steps of 1,024.
pub fn size(text: &str) -> Result<i64, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit {
        "" | "b" => 0,
        "k" | "kb" | "ki" | "kib" => 10,
        "m" | "mb" | "mi" | "mib" => 20,
        "g" | "gb" | "gi" | "gib" => 30,
        "t" | "tb" | "ti" | "tib" => 40,
        _ => return Err(format!("{text:?} is no size: write a number and k, m or g")),
    };
    let wrong = || format!("{text:?} is no size");
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole: i128 = whole.parse().map_err(|_| wrong())?;
    let digits = u32::try_from(fraction.len()).unwrap_or(u32::MAX);
    let scale = 10_i128.checked_pow(digits).filter(|_| digits <= MAX_DIGITS);
    let (scale, fraction) = scale.zip(fraction.parse::<i128>().ok()).ok_or_else(wrong)?;
    let bytes = whole
        .checked_mul(1 << shift)
        .and_then(|bytes| bytes.checked_add((fraction << shift) / scale));
    bytes
        .and_then(|bytes| i64::try_from(bytes).ok())
        .ok_or_else(|| format!("{text:?} is too much"))
}

/// The same; −1 is no limit.
pub fn size_or_none(text: &str) -> Result<i64, String> {
    if text == "-1" { Ok(-1) } else { size(text) }
}

/// `DEVICE:NUMBER`, the number with a unit as sizes have it.
pub fn device_rate(text: &str) -> Result<(String, u64), String> {
    let wrong = || format!("{text:?} is not DEVICE:NUMBER, such as /dev/sda:1m");
    let (device, rate) = text.rsplit_once(':').ok_or_else(wrong)?;
    if !device.starts_with('/') {
        return Err(wrong());
    }
    Ok((device.to_owned(), size(rate)?.cast_unsigned()))
}

/// `PAGE=SIZE`, the page as the kernel writes it.
pub fn hugepages(text: &str) -> Result<(String, u64), String> {
    let (page, limit) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not PAGE=SIZE, such as 2MB=64m"))?;
    Ok((page.to_owned(), size(limit)?.cast_unsigned()))
}

/// Billionths of a CPU.
pub fn cpus(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is no number of CPUs: write 2 or 0.5");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 || ["", "."].contains(&text) {
        return Err(wrong());
    }
    let whole: i64 = if whole.is_empty() {
        0
    } else {
        whole.parse().map_err(|_| wrong())?
    };
    let fraction: i64 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    let total = whole
        .checked_mul(NANOS)
        .and_then(|nanos| nanos.checked_add(fraction));
    total.ok_or_else(wrong)
}

/// `KEY=VALUE`; without `=` the value is empty.
pub fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err("a label has a key".into());
    }
    Ok((key.into(), value.into()))
}

/// `--log-opt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogOption {
    /// Bytes of one file; 0: unlimited.
    MaxSize(u64),
    /// Files, with the current one.
    MaxFiles(u32),
}

/// `max-size=SIZE` or `max-file=NUMBER`.
pub fn log_option(text: &str) -> Result<LogOption, String> {
    match text.split_once('=') {
        Some(("max-size", "-1")) => Ok(LogOption::MaxSize(0)),
        Some(("max-size", value)) => match u64::try_from(size(value)?) {
            Ok(bytes @ 1..) => Ok(LogOption::MaxSize(bytes)),
            _ => Err(format!("max-size {value:?} is no size of a file")),
        },
        Some(("max-file", value)) => match value.parse() {
            Ok(files @ 1..) => Ok(LogOption::MaxFiles(files)),
            _ => Err(format!("max-file {value:?} is no number of files")),
        },
        Some((key, _)) => Err(format!("{key:?} is neither max-size nor max-file")),
        None => Err("write max-size=SIZE or max-file=NUMBER".into()),
    }
}

/// Names of the signals from 1 on.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// As programs see it: the C library keeps the two before to itself.
const RTMIN: u32 = 34;
const RTMAX: u32 = 64;

/// A signal's number, by its name with or without SIG, `RTMIN+n`, `RTMAX-n`, or by itself.
pub fn signal(text: &str) -> Result<u32, String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let named = || (1..).zip(SIGNALS).find(|(_, known)| *known == name);
    let number = text.parse().ok();
    let number = number.or_else(|| named().map(|(number, _)| number));
    number
        .or_else(|| real_time(name))
        .filter(|number| matches!(number, 1..=31 | RTMIN..=RTMAX))
        .ok_or_else(|| format!("{text:?} is no signal"))
}

fn real_time(name: &str) -> Option<u32> {
    let distance = |rest: &str, sign| match rest.strip_prefix(sign) {
        Some(digits) => digits.parse().ok(),
        None => rest.is_empty().then_some(0),
    };
    let number = match name.strip_prefix("RTMIN") {
        Some(rest) => RTMIN.checked_add(distance(rest, '+')?),
        None => RTMAX.checked_sub(distance(name.strip_prefix("RTMAX")?, '-')?),
    };
    number.filter(|number| *number >= RTMIN)
}

/// `ps --filter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Beginning of the id.
    Id(String),
    /// Part of the name.
    Name(String),
    /// State.
    Status(String),
    /// A label's key, and its value where one is given.
    Label(String, Option<String>),
}

/// `id=…`, `name=…`, `status=…` or `label=KEY[=VALUE]`.
pub fn filter(text: &str) -> Result<Filter, String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("write id=…, name=…, status=… or label=…")?;
    let value = value.to_owned();
    match key {
        "id" => Ok(Filter::Id(value)),
        "name" => Ok(Filter::Name(value)),
        "status" if ["created", "running", "exited"].contains(&value.as_str()) => {
            Ok(Filter::Status(value))
        }
        "status" => Err(format!("{value:?} is none of created, running and exited")),
        "label" => Ok(match value.split_once('=') {
            Some((key, value)) => Filter::Label(key.to_owned(), Some(value.to_owned())),
            None => Filter::Label(value, None),
        }),
        other => Err(format!("{other:?} is none of id, name, status and label")),
    }
}

/// Lines from the end; −1 for all.
pub fn tail(text: &str) -> Result<i64, String> {
    if text == "all" {
        return Ok(-1);
    }
    text.parse::<u32>()
        .map(i64::from)
        .map_err(|_| format!("{text:?} is neither a number nor all"))
}

/// Nanoseconds since 1970: a time before now (`90s`, `10m`, `2h`, `1d`), seconds, or RFC 3339, which
/// without a zone is UTC.
pub fn time(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is no time: write 10m, 1700000000 or 2026-01-31T12:00:00Z");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "" => 1,
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return rfc3339(text).ok_or_else(wrong),
    };
    let number: i64 = number.parse().map_err(|_| wrong())?;
    let nanos = number
        .checked_mul(seconds)
        .and_then(|seconds| seconds.checked_mul(NANOS))
        .ok_or_else(wrong)?;
    if unit.is_empty() {
        return Ok(nanos);
    }
    Ok(now() - nanos)
}

/// Nanoseconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    })
}

fn rfc3339(text: &str) -> Option<i64> {
    let (date, clock) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00Z"));
    let [year, month, day] = numbers(date, '-')?;
    let zone_at = clock.find(['Z', '+', '-']).unwrap_or(clock.len());
    let (clock, zone) = clock.split_at(zone_at);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [hour, minute, second] = numbers(clock, ':')?;
    let (next_year, next_month) = if month == 12 {
        (year + 1, 1)
    } else {
        (year, month + 1)
    };
    let in_range = (1..=12).contains(&month)
        && (1..=days(next_year, next_month, 1) - days(year, month, 1)).contains(&day)
        && hour < 24
        && minute < 60;
    if !in_range || second > 60 || fraction.len() > 9 {
        return None;
    }
    let fraction: i64 = format!("{fraction:0<9}").parse().ok()?;
    let offset = match zone {
        "" | "Z" => 0,
        zone => {
            let (sign, rest) = zone.split_at(1);
            let (hours, minutes) = rest.split_once(':')?;
            let (hours, minutes) = (hours.parse::<u8>().ok()?, minutes.parse::<u8>().ok()?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = i64::from(hours) * 3600 + i64::from(minutes) * 60;
            if sign == "-" { -seconds } else { seconds }
        }
    };
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    seconds.checked_mul(NANOS)?.checked_add(fraction)
}

fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let mut parts = text
        .split(separator)
        .map(|part| part.parse::<u16>().map(i64::from).ok());
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(numbers)
}

/// Days from 1970-01-01; a year begins in March for this count.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year.div_euclid(400) * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100
        + day_of_year
        - 719_468
}

/// The variables of `-e` and of files; one without a value is taken from this process or left out.
pub fn environment(files: &[String], flags: &[String]) -> Vec<String> {
    let lines = files.iter().flat_map(|text| text.lines());
    let lines = lines
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let entries = lines.chain(flags.iter().map(String::as_str));
    let complete = |entry: &str| match entry.contains('=') {
        true => Some(entry.to_owned()),
        false => std::env::var(entry)
            .ok()
            .map(|value| format!("{entry}={value}")),
    };
    entries.filter_map(complete).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        let read = volume("/a:/b:ro").unwrap();
        assert_eq!(
            (read.source.as_str(), read.target.as_str(), read.readonly),
            ("/a", "/b", true)
        );
        assert!(volume("./x:/b").unwrap().source.ends_with("/x"));
        for wrong in ["/a", "/a:b", ":/b", "/a:/b:rx", "/a:/b:ro:x", "name:/b"] {
            assert!(volume(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ports() {
        let port = |text| super::port(text).map(|p| (p.ip, p.host, p.container, p.protocol));
        assert_eq!(port("8080:80"), Ok((String::new(), 8080, 80, "tcp".into())));
        assert_eq!(
            port("127.0.0.1:53:53/udp"),
            Ok(("127.0.0.1".into(), 53, 53, "udp".into()))
        );
        assert_eq!(port("[::1]:1:2"), Ok(("::1".into(), 1, 2, "tcp".into())));
        for wrong in ["80", "0:80", "80:70000", "a:80", "x:1:2", "1:2/icmp", ""] {
            assert!(port(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_and_cpus() {
        assert_eq!(size("100"), Ok(100));
        assert_eq!(size("512m"), Ok(512 << 20));
        assert_eq!(size("2GiB"), Ok(2 << 30));
        assert_eq!(size("1.5g"), Ok(3 << 29));
        assert_eq!(size("0.5"), Ok(0));
        for wrong in ["", "m", "1x", "-1", ".5", "1.", "1.2.3g", "99999999999t"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(cpus("2"), Ok(2_000_000_000));
        assert_eq!(cpus("0.25"), Ok(250_000_000));
        assert_eq!(cpus(".5"), Ok(500_000_000));
        assert_eq!(cpus("0"), Ok(0));
        for wrong in ["", "-1", "a", "1.2.3", "."] {
            assert!(cpus(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(time("1700000000"), Ok(1_700_000_000 * NANOS));
        assert_eq!(time("2026-11-21T08:43:22Z"), Ok(1_795_250_602 * NANOS));
        assert_eq!(
            time("2026-11-21T09:43:22.5+01:00"),
            Ok(1_795_250_602 * NANOS + NANOS / 2)
        );
        assert_eq!(time("2026-11-21"), Ok(1_795_219_200 * NANOS));
        let before = now();
        let late = time("10m").unwrap() + 600 * NANOS - before;
        assert!((0..NANOS).contains(&late), "{late}");
        time("2024-02-29").unwrap();
        for wrong in [
            "",
            "soon",
            "10x",
            "2026-13-01",
            "2026-02-29",
            "2026-04-31",
            "2026-01-01T00:00:00+24:00",
        ] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn environments() {
        let file = "# comment\n\nA=1\n  B=two words\nNO_SUCH_VARIABLE_HERE\n".to_owned();
        let read = environment(&[file], &["C=".into(), "PATH".into()]);
        assert_eq!(read[..3], ["A=1", "B=two words", "C="]);
        assert!(read[3].starts_with("PATH="));
    }

    #[test]
    fn log_options() {
        assert_eq!(log_option("max-size=10k"), Ok(LogOption::MaxSize(10_240)));
        assert_eq!(log_option("max-size=-1"), Ok(LogOption::MaxSize(0)));
        assert_eq!(log_option("max-file=3"), Ok(LogOption::MaxFiles(3)));
        for wrong in ["max-size=0", "max-file=0", "max-size", "mode=blocking", ""] {
            assert!(log_option(wrong).is_err(), "{wrong}");
        }
        assert!(log_option("mode=x").unwrap_err().contains("mode"));
    }

    #[test]
    fn signals() {
        for (text, number) in [
            ("KILL", 9),
            ("sigterm", 15),
            ("9", 9),
            ("SYS", 31),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmax-1", 63),
            ("RTMAX-30", 34),
            ("34", 34),
            ("64", 64),
        ] {
            assert_eq!(signal(text), Ok(number), "{text}");
        }
        for wrong in [
            "", "0", "32", "33", "65", "NOSUCH", "SIG", "RTMIN-1", "RTMIN+31", "RTMAX-31",
            "RTMAX+1", "RTMIN+", "SIG9",
        ] {
            assert!(signal(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn filters() {
        let label = Filter::Label("a".into(), Some("b=c".into()));
        assert_eq!(filter("label=a=b=c"), Ok(label));
        assert_eq!(filter("label=a"), Ok(Filter::Label("a".into(), None)));
        assert!(filter("status=sleeping").is_err() && filter("web").is_err());
        assert!(filter("colour=red").unwrap_err().contains("colour"));
    }
}
