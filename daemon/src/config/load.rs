//! Reads `config.toml` and the files of `conf.d` beside it; the later file wins, key by key.

use std::path::{Path, PathBuf};

use thiserror::Error;
use toml::{Table, Value};

use super::{Config, DEFAULT_FILE};

/// A configuration that can't be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file or folder could not be read.
    #[error("read {path}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file has an unknown key or a wrong value.
    #[error("{path}:{line}: {what}")]
    Content {
        /// The file.
        path: PathBuf,
        /// Where in it, from 1.
        line: usize,
        /// The key and what is wrong.
        what: String,
    },
    /// The files are right one by one but not together.
    #[error("the configuration files do not fit together: {0}")]
    Merge(String),
    /// A value that no file can show to be wrong alone.
    #[error("{key}: {what}")]
    Value {
        /// The key or flag.
        key: &'static str,
        /// What is wrong.
        what: String,
    },
}

/// Reads `file`, or the default one when it is there, and `conf.d/*.toml` beside it.
///
/// # Errors
/// A file that can't be read or has an unknown key or a wrong value.
pub fn load(file: Option<&Path>) -> Result<Config, ConfigError> {
    let (path, required) = match file {
        Some(path) => (path, true),
        None => (Path::new(DEFAULT_FILE), false),
    };
    let mut merged = Table::new();
    match std::fs::read_to_string(path) {
        Ok(text) => merge(&mut merged, parse(path, &text)?),
        Err(error) if !required && error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => {
            return Err(ConfigError::Read {
                path: path.to_owned(),
                source,
            });
        }
    }
    for path in drop_ins(&path.with_file_name("conf.d"))? {
        let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Read {
            path: path.clone(),
            source,
        })?;
        merge(&mut merged, parse(&path, &text)?);
    }
    merged
        .try_into()
        .map_err(|error: toml::de::Error| ConfigError::Merge(error.message().into()))
}

/// The `*.toml` files of a folder in lexical order; none when the folder is absent.
fn drop_ins(folder: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: folder.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Checks one file alone, so that an error names it, the line and the key.
fn parse(path: &Path, text: &str) -> Result<Table, ConfigError> {
    let failed = |error: toml::de::Error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        let what = error.message().replacen("unknown field", "unknown key", 1);
        let what = match key_on(text, line) {
            Some(key) if !what.contains(&format!("`{key}`")) => format!("{key}: {what}"),
            _ => what,
        };
        ConfigError::Content {
            path: path.to_owned(),
            line,
            what,
        }
    };
    toml::from_str::<Config>(text).map_err(failed)?;
    text.parse().map_err(failed)
}

/// The key that a line sets.
fn key_on(text: &str, line: usize) -> Option<&str> {
    let (key, _) = text.lines().nth(line.checked_sub(1)?)?.split_once('=')?;
    Some(key.trim())
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
        + 1
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use joey_network::Mode as NetworkMode;

    use super::super::Timespan;
    use super::*;

    struct Files(PathBuf);

    impl Files {
        fn new(name: &str) -> Self {
            let folder =
                std::env::temp_dir().join(format!("joeyd-config-{name}-{}", std::process::id()));
            std::fs::create_dir_all(folder.join("conf.d")).unwrap();
            Self(folder)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, text).unwrap();
            path
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn later_files_win_key_by_key() {
        let files = Files::new("order");
        let main = files.write(
            "config.toml",
            "[network]\nmode = \"cni\"\nbridge = \"a\"\n[runtime.handlers.x]\n",
        );
        files.write(
            "conf.d/20-b.toml",
            "[network]\nbridge = \"c\"\n[runtime.handlers.y]\n",
        );
        files.write(
            "conf.d/10-a.toml",
            "shutdown_grace = \"1m\"\n[network]\nbridge = \"b\"\n",
        );
        files.write("conf.d/30.conf", "nonsense");
        let config = load(Some(&main)).unwrap();
        assert_eq!(config.network.mode, NetworkMode::Cni);
        assert_eq!(config.network.bridge, "c");
        assert_eq!(config.shutdown_grace, Timespan::seconds(60));
        assert_eq!(
            config.runtime.handlers.keys().collect::<Vec<_>>(),
            ["x", "y"]
        );
    }

    #[test]
    fn an_unknown_key_is_named_with_file_and_line() {
        let files = Files::new("unknown");
        let main = files.write("config.toml", "");
        let extra = files.write("conf.d/10.toml", "\n[registry]\nmax_downloads = 3\n");
        let error = load(Some(&main)).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{}:3: ", extra.display())),
            "{error}"
        );
        assert!(error.contains("unknown key `max_downloads`"), "{error}");
        assert!(error.contains("max_concurrent_downloads"), "{error}");
        files.write(
            "conf.d/10.toml",
            "[runtime.handlers.fast]\ncni_dir = \"/x\"\n",
        );
        let error = load(Some(&main)).unwrap_err().to_string();
        assert!(error.contains("unknown key `cni_dir`"), "{error}");
        assert!(error.contains("cni_conf_dir"), "{error}");
    }

    #[test]
    fn a_wrong_value_is_named_with_its_line() {
        let files = Files::new("value");
        let main = files.write("config.toml", "[registry]\nprogress_timeout = \"soon\"\n");
        let error = load(Some(&main)).unwrap_err().to_string();
        assert!(
            error.contains("config.toml:2: progress_timeout: \"soon\" is no time"),
            "{error}"
        );
    }

    #[test]
    fn a_file_asked_for_must_exist() {
        let files = Files::new("absent");
        let error = load(Some(&files.0.join("no.toml"))).unwrap_err();
        assert!(matches!(error, ConfigError::Read { .. }));
    }
}
