//! Messages: structured lines on standard error whose level can change while running; and where
//! spans go to.

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::traces::Traces;

/// Changes the level.
#[derive(Debug, Clone)]
pub struct Logging(reload::Handle<EnvFilter, Registry>);

/// Starts the messages, and the spans where there are traces. A subscriber that is there already
/// stays.
///
/// # Errors
/// When `level` is no filter.
pub fn start(level: &str, traces: Option<&Traces>) -> Result<Logging, ParseError> {
    let (filter, handle) = reload::Layer::new(EnvFilter::try_new(level)?);
    let registry = tracing_subscriber::registry();
    drop(match traces {
        // What no line is written about costs nothing.
        None => registry.with(filter).with(lines()).try_init(),
        Some(traces) => registry
            .with(lines().with_filter(filter))
            .with(traces.layer())
            .try_init(),
    });
    Ok(Logging(handle))
}

fn lines<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
}

impl Logging {
    /// Sets another level.
    ///
    /// # Errors
    /// When `level` is no filter.
    pub fn set_level(&self, level: &str) -> Result<(), ParseError> {
        let filter = EnvFilter::try_new(level)?;
        if self.0.reload(filter).is_err() {
            tracing::warn!("the log level cannot be changed any more");
        }
        Ok(())
    }
}
