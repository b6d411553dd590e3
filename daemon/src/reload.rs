//! SIGHUP: reads the configuration again, takes over what can change while running and says what
//! cannot. The registries' `hosts.toml` files need none: each pull reads them.

use std::sync::Arc;

use parking_lot::Mutex;
use toml::{Table, Value};

use crate::args::Settings;
use crate::config::{self, Config};
use crate::logging::Logging;

/// Keys that take effect at once.
const LIVE: [&str; 1] = ["log.level"];

/// Reads the configuration again.
#[derive(Debug)]
pub struct Reloader {
    settings: Settings,
    current: Mutex<Config>,
    logging: Logging,
    streaming: Arc<joey_streaming::Server>,
}

impl Reloader {
    /// `current` is in force.
    #[must_use]
    pub fn new(
        settings: Settings,
        current: Config,
        logging: Logging,
        streaming: Arc<joey_streaming::Server>,
    ) -> Self {
        Self {
            settings,
            current: Mutex::new(current),
            logging,
            streaming,
        }
    }

    /// Reads and applies; a configuration that is wrong changes nothing.
    pub fn reload(&self) {
        let mut new = match config::load(self.settings.config.as_deref()) {
            Ok(config) => config,
            Err(error) => {
                tracing::error!(error = %joey_runtime::error::chain(&error), "the old configuration stays");
                return;
            }
        };
        self.settings.apply(&mut new);
        if let Err(error) = self.logging.set_level(&new.log.level) {
            tracing::error!(%error, level = new.log.level, "the old log level stays");
        }
        if let Err(error) = self.streaming.reload_certificate() {
            let error = joey_runtime::error::chain(&error);
            tracing::error!(%error, "the old certificate of streaming stays");
        }
        let mut current = self.current.lock();
        let changed = changed_keys(&current, &new);
        for key in changed.iter().filter(|key| !LIVE.contains(&key.as_str())) {
            tracing::warn!(%key, "changed; takes effect at the next start");
        }
        tracing::info!(changed = changed.len(), "configuration reloaded");
        current.log = new.log;
    }
}

/// The dotted names of the keys whose values differ.
fn changed_keys(old: &Config, new: &Config) -> Vec<String> {
    let mut changed = Vec::new();
    if let (Ok(old), Ok(new)) = (Table::try_from(old), Table::try_from(new)) {
        compare(&old, &new, "", &mut changed);
    }
    changed
}

fn compare(old: &Table, new: &Table, prefix: &str, changed: &mut Vec<String>) {
    let keys: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
    for key in keys {
        match (old.get(key), new.get(key)) {
            (Some(Value::Table(old)), Some(Value::Table(new))) => {
                compare(old, new, &format!("{prefix}{key}."), changed);
            }
            (old, new) if old != new => changed.push(format!("{prefix}{key}")),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_keys_are_named() {
        let old = Config::default();
        let mut new = old.clone();
        assert!(changed_keys(&old, &new).is_empty());
        new.log.level = "debug".into();
        new.network.bridge = "b".into();
        new.runtime
            .handlers
            .insert("kata".into(), config::Handler::default());
        assert_eq!(
            changed_keys(&old, &new),
            ["log.level", "network.bridge", "runtime.handlers.kata"]
        );
    }
}
