//! Messages: structured lines on standard error whose level can change while running.

use std::io::IsTerminal;

use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// Changes the level.
#[derive(Debug, Clone)]
pub struct Logging(reload::Handle<EnvFilter, Registry>);

/// Starts the messages. A subscriber that is there already stays.
///
/// # Errors
/// When `level` is no filter.
pub fn start(level: &str) -> Result<Logging, ParseError> {
    let (filter, handle) = reload::Layer::new(EnvFilter::try_new(level)?);
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    drop(
        tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .try_init(),
    );
    Ok(Logging(handle))
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
