//! Measurements of the daemon itself, as Prometheus text.

mod http;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use parking_lot::Mutex;
use tonic::Code;

use crate::serve::Lanes;
pub use http::{MetricsError, serve};

/// Upper bounds of the buckets, in seconds.
const BOUNDS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
];

#[derive(Debug, Default, Clone)]
struct Method {
    codes: BTreeMap<&'static str, u64>,
    /// Calls of each bucket alone; the last one takes the rest.
    buckets: [u64; BOUNDS.len() + 1],
    seconds: f64,
}

/// Counts calls and their times by method.
#[derive(Debug, Default)]
pub struct Calls(Mutex<BTreeMap<String, Method>>);

impl Calls {
    /// Counts a call. An unknown method is not counted: clients could invent any number.
    pub fn record(&self, path: &str, code: Code, took: Duration) {
        if code == Code::Unimplemented {
            return;
        }
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS
            .iter()
            .position(|bound| seconds <= *bound)
            .unwrap_or(BOUNDS.len());
        let mut methods = self.0.lock();
        let method = match methods.get_mut(path) {
            Some(method) => method,
            None => methods.entry(path.to_owned()).or_default(),
        };
        *method.codes.entry(code_name(code)).or_default() += 1;
        method.buckets[bucket] += 1;
        method.seconds += seconds;
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let methods = self.0.lock().clone();
        writeln!(
            text,
            "# HELP joey_grpc_calls_total Calls answered, by method and code."
        )?;
        writeln!(text, "# TYPE joey_grpc_calls_total counter")?;
        for (name, method) in &methods {
            for (code, count) in &method.codes {
                writeln!(
                    text,
                    "joey_grpc_calls_total{{method=\"{name}\",code=\"{code}\"}} {count}"
                )?;
            }
        }
        let histogram = "joey_grpc_call_seconds";
        writeln!(text, "# HELP {histogram} Time until a call's answer began.")?;
        writeln!(text, "# TYPE {histogram} histogram")?;
        for (name, method) in &methods {
            let mut total = 0;
            for (bound, count) in BOUNDS.iter().zip(&method.buckets) {
                total += count;
                writeln!(
                    text,
                    "{histogram}_bucket{{method=\"{name}\",le=\"{bound}\"}} {total}"
                )?;
            }
            total += method.buckets[BOUNDS.len()];
            writeln!(
                text,
                "{histogram}_bucket{{method=\"{name}\",le=\"+Inf\"}} {total}"
            )?;
            writeln!(
                text,
                "{histogram}_sum{{method=\"{name}\"}} {}",
                method.seconds
            )?;
            writeln!(text, "{histogram}_count{{method=\"{name}\"}} {total}")?;
        }
        Ok(())
    }
}

/// How many objects of one kind there are.
#[derive(Debug, Clone, Copy)]
pub struct Count {
    /// `pods` or `containers`.
    pub kind: &'static str,
    /// `cri` or `joey`.
    pub owner: &'static str,
    /// How many.
    pub count: usize,
}

/// All measurements as text.
///
/// # Errors
/// None in practice: writing to a string does not fail.
pub fn render(calls: &Calls, lanes: &Lanes, counts: &[Count]) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    writeln!(text, "# HELP joey_build_info The daemon's version.")?;
    writeln!(text, "# TYPE joey_build_info gauge")?;
    writeln!(
        text,
        "joey_build_info{{version=\"{}\"}} 1",
        env!("CARGO_PKG_VERSION")
    )?;
    for (name, help, pick) in [
        ("joey_lane_calls", "Calls served now, by lane.", 0),
        (
            "joey_lane_limit",
            "Calls served at once at most, by lane.",
            1,
        ),
    ] {
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge")?;
        for (lane, now, limit) in lanes.in_flight() {
            let value = if pick == 0 { now } else { limit };
            writeln!(text, "{name}{{lane=\"{}\"}} {value}", lane.name())?;
        }
    }
    writeln!(
        text,
        "# HELP joey_objects Pods and containers, by who asked for them."
    )?;
    writeln!(text, "# TYPE joey_objects gauge")?;
    for Count { kind, owner, count } in counts {
        writeln!(
            text,
            "joey_objects{{kind=\"{kind}\",owner=\"{owner}\"}} {count}"
        )?;
    }
    calls.write(&mut text)?;
    Ok(text)
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

    #[test]
    fn calls_are_counted_in_their_buckets() {
        let calls = Calls::default();
        calls.record("/s/M", Code::Ok, Duration::from_millis(2));
        calls.record("/s/M", Code::NotFound, Duration::from_secs(100));
        calls.record("/s/Invented", Code::Unimplemented, Duration::ZERO);
        let count = Count {
            kind: "pods",
            owner: "cri",
            count: 3,
        };
        let text = render(&calls, &Lanes::new(&Limits::default()), &[count]).unwrap();
        for line in [
            "joey_grpc_calls_total{method=\"/s/M\",code=\"NOT_FOUND\"} 1",
            "joey_grpc_call_seconds_bucket{method=\"/s/M\",le=\"0.001\"} 0",
            "joey_grpc_call_seconds_bucket{method=\"/s/M\",le=\"0.0025\"} 1",
            "joey_grpc_call_seconds_bucket{method=\"/s/M\",le=\"60\"} 1",
            "joey_grpc_call_seconds_bucket{method=\"/s/M\",le=\"+Inf\"} 2",
            "joey_grpc_call_seconds_count{method=\"/s/M\"} 2",
            "joey_lane_limit{lane=\"pulls\"} 16",
            "joey_objects{kind=\"pods\",owner=\"cri\"} 3",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
        assert!(!text.contains("Invented"));
    }
}
