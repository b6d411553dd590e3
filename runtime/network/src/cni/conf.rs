//! CNI configuration lists: reading the folder, checking what is in it.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::version::Version;

const MAX_FILE: u64 = 1024 * 1024;
const MAX_PLUGINS: usize = 64;

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfError {
    /// The folder can't be read.
    #[error("read CNI configuration folder {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// The file can't be read.
    #[error("read CNI configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// It is no JSON.
    #[error("parse CNI configuration {path}")]
    Json {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: serde_json::Error,
    },
    /// It is not what the CNI specification wants.
    #[error("CNI configuration {path}: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// One plugin of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PluginConf {
    /// Name of its program.
    pub(crate) kind: String,
    /// Its part of the configuration.
    pub(crate) conf: Map<String, Value>,
}

impl PluginConf {
    /// True if it declares that it understands this part of `runtimeConfig`.
    pub(crate) fn can(&self, capability: &str) -> bool {
        let declared = self.conf.get("capabilities");
        declared.and_then(|all| all.get(capability)) == Some(&Value::Bool(true))
    }
}

/// A configuration list; a single configuration is a list of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfList {
    pub(crate) name: String,
    pub(crate) version: Version,
    pub(crate) plugins: Vec<PluginConf>,
    pub(crate) disable_check: bool,
    pub(crate) disable_gc: bool,
}

impl ConfList {
    /// As it is kept in a pod's record; [`ConfList::from_json`] reads it back.
    pub(crate) fn to_json(&self) -> Value {
        let plugins: Vec<Value> = self
            .plugins
            .iter()
            .map(|plugin| Value::Object(plugin.conf.clone()))
            .collect();
        json!({
            "cniVersion": self.version.to_string(),
            "name": self.name,
            "disableCheck": self.disable_check,
            "disableGC": self.disable_gc,
            "plugins": plugins,
        })
    }

    /// Reads a list, or a single configuration (one without `plugins`).
    pub(crate) fn from_json(value: &Value) -> Result<Self, String> {
        let object = value.as_object().ok_or("it is no JSON object")?;
        let name = object
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if !valid_name(name) {
            return Err(format!("{name:?} is no network name"));
        }
        let plugins = match object.get("plugins") {
            Some(Value::Array(plugins)) => plugins.as_slice(),
            Some(_) => return Err("'plugins' is no list".to_owned()),
            None => std::slice::from_ref(value),
        };
        if plugins.len() > MAX_PLUGINS {
            return Err(format!(
                "{} plugins are more than {MAX_PLUGINS}",
                plugins.len()
            ));
        }
        Ok(Self {
            name: name.to_owned(),
            version: version_of(object)?,
            plugins: plugins.iter().map(plugin).collect::<Result<_, _>>()?,
            disable_check: truth(object.get("disableCheck"))?,
            disable_gc: truth(object.get("disableGC"))?,
        })
    }
}

fn plugin(value: &Value) -> Result<PluginConf, String> {
    let conf = value.as_object().ok_or("a plugin is no JSON object")?;
    let kind = conf.get("type").and_then(Value::as_str).unwrap_or_default();
    if kind.is_empty() {
        return Err("a plugin has no 'type'".to_owned());
    }
    if kind.contains(['/', '\0']) || kind.starts_with('.') {
        return Err(format!("{kind:?} is no plugin's name"));
    }
    Ok(PluginConf {
        kind: kind.to_owned(),
        conf: conf.clone(),
    })
}

/// `cniVersions` offers several: the highest we know counts.
fn version_of(object: &Map<String, Value>) -> Result<Version, String> {
    let stated = match object.get("cniVersion") {
        None => Version::DEFAULT,
        Some(Value::String(text)) => text.parse()?,
        Some(_) => return Err("'cniVersion' is no text".to_owned()),
    };
    let offered = object.get("cniVersions").and_then(Value::as_array);
    let offered = offered
        .into_iter()
        .flatten()
        .filter_map(|v| v.as_str()?.parse().ok());
    let best = offered
        .chain([stated])
        .filter(|version| *version <= Version::NEWEST)
        .max();
    best.ok_or_else(|| format!("CNI version {stated} is newer than {}", Version::NEWEST))
}

/// The specification has a boolean; texts are in use as well.
fn truth(value: Option<&Value>) -> Result<bool, String> {
    match value {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(truth)) => Ok(*truth),
        Some(Value::String(text)) => match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "t" => Ok(true),
            "false" | "0" | "f" => Ok(false),
            _ => Err(format!("{text:?} is neither true nor false")),
        },
        Some(other) => Err(format!("{other} is neither true nor false")),
    }
}

fn valid_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    name.bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(plain)
}

/// What the folder holds: the usable lists in lexical order of their files, and what is wrong with
/// the others.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) lists: Vec<ConfList>,
    pub(crate) errors: Vec<ConfError>,
}

/// Reads a folder; 0 as `limit` means all.
pub(crate) fn load(folder: &Path, limit: usize) -> Result<Loaded, ConfError> {
    let failed = |source| ConfError::Folder {
        path: folder.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let kind = path.extension().and_then(|extension| extension.to_str());
        if matches!(kind, Some("conf" | "conflist" | "json")) && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    let limit = if limit == 0 { usize::MAX } else { limit };
    let mut loaded = Loaded::default();
    for path in paths {
        if loaded.lists.len() >= limit {
            break;
        }
        match load_file(&path) {
            Ok(list) => loaded.lists.push(list),
            Err(error) => loaded.errors.push(error),
        }
    }
    Ok(loaded)
}

fn load_file(path: &Path) -> Result<ConfList, ConfError> {
    let invalid = |reason: String| ConfError::Invalid {
        path: path.to_owned(),
        reason,
    };
    let mut value = read_json(path)?;
    if path
        .extension()
        .is_some_and(|extension| extension == "conflist")
    {
        let inlined = value.get("plugins").is_some();
        add_separate_plugins(path, &mut value)?;
        if !inlined && value.get("plugins").is_none() {
            return Err(invalid("it has no 'plugins'".to_owned()));
        }
    }
    let list = ConfList::from_json(&value).map_err(invalid)?;
    if list.plugins.is_empty() {
        return Err(invalid("its list of plugins is empty".to_owned()));
    }
    Ok(list)
}

/// Since 1.1 a list may have further plugins as files in a folder named like the network.
fn add_separate_plugins(path: &Path, value: &mut Value) -> Result<(), ConfError> {
    let only_inlined = value.get("loadOnlyInlinedPlugins").and_then(Value::as_bool);
    let name = value
        .get("name")
        .and_then(Value::as_str)
        .filter(|name| valid_name(name));
    let (Some(name), Some(parent)) = (name, path.parent()) else {
        return Ok(());
    };
    if only_inlined == Some(true) {
        return Ok(());
    }
    let Ok(entries) = fs::read_dir(parent.join(name)) else {
        return Ok(());
    };
    let mut paths: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "conf")
        })
        .collect();
    paths.sort();
    let separate: Vec<Value> = paths
        .iter()
        .take(MAX_PLUGINS)
        .map(|path| read_json(path))
        .collect::<Result<_, _>>()?;
    if separate.is_empty() {
        return Ok(());
    }
    let Some(object) = value.as_object_mut() else {
        return Ok(());
    };
    let plugins = object
        .entry("plugins")
        .or_insert_with(|| Value::Array(Vec::new()));
    if let Some(plugins) = plugins.as_array_mut() {
        plugins.extend(separate);
    }
    Ok(())
}

fn read_json(path: &Path) -> Result<Value, ConfError> {
    let failed = |source| ConfError::Read {
        path: path.to_owned(),
        source,
    };
    let file = fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        let reason = format!("it is larger than {MAX_FILE} bytes");
        return Err(ConfError::Invalid {
            path: path.to_owned(),
            reason,
        });
    }
    serde_json::from_slice(&bytes).map_err(|source| ConfError::Json {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn files_are_read_in_lexical_order_and_bad_ones_named() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        write(
            folder,
            "20-b.conflist",
            r#"{"cniVersion":"1.0.0","name":"b","plugins":[{"type":"x"}]}"#,
        );
        write(folder, "10-a.conf", r#"{"name":"a","type":"bridge"}"#);
        write(folder, "00-bad.conf", "{");
        write(folder, "01-untyped.json", r#"{"name":"a"}"#);
        write(folder, "02-empty.conflist", r#"{"name":"e","plugins":[]}"#);
        write(
            folder,
            "03-none.conflist",
            r#"{"name":"e","type":"bridge"}"#,
        );
        write(
            folder,
            "04-new.conf",
            r#"{"cniVersion":"2.0.0","name":"e","type":"bridge"}"#,
        );
        write(folder, "readme.txt", "x");
        let loaded = load(folder, 0).unwrap();
        let names: Vec<_> = loaded.lists.iter().map(|list| list.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(loaded.lists[0].version.to_string(), "0.2.0");
        assert_eq!(loaded.errors.len(), 5, "{:?}", loaded.errors);
        assert_eq!(load(folder, 1).unwrap().lists.len(), 1);
        load(&folder.join("none"), 1).unwrap_err();
    }

    #[test]
    fn separate_plugins_follow_the_inlined() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let list = r#"{"cniVersion":"1.1.0","name":"net","plugins":[{"type":"a"}]}"#;
        write(folder, "1.conflist", list);
        write(folder, "net/2.conf", r#"{"type":"c"}"#);
        write(folder, "net/1.conf", r#"{"type":"b"}"#);
        let kinds = |loaded: Loaded| -> Vec<String> {
            loaded.lists[0]
                .plugins
                .iter()
                .map(|plugin| plugin.kind.clone())
                .collect()
        };
        assert_eq!(kinds(load(folder, 0).unwrap()), ["a", "b", "c"]);
        let only = list.replace("\"plugins\"", "\"loadOnlyInlinedPlugins\":true,\"plugins\"");
        write(folder, "1.conflist", &only);
        assert_eq!(kinds(load(folder, 0).unwrap()), ["a"]);
    }

    #[test]
    fn the_highest_known_version_is_taken() {
        let parse = |text: &str| ConfList::from_json(&serde_json::from_str(text).unwrap());
        let several = r#"{"name":"n","cniVersion":"0.3.1","cniVersions":["1.0.0","1.1.0","9.0.0"],"plugins":[{"type":"a"}]}"#;
        assert_eq!(parse(several).unwrap().version.to_string(), "1.1.0");
        parse(r#"{"name":"n","cniVersion":"9.0.0","plugins":[{"type":"a"}]}"#).unwrap_err();
        parse(r#"{"name":"../n","plugins":[{"type":"a"}]}"#).unwrap_err();
        parse(r#"{"name":"n","plugins":[{"type":"../a"}]}"#).unwrap_err();
        parse(r#"{"name":"n","plugins":{}}"#).unwrap_err();
        parse(r#"{"name":"n","disableCheck":7,"plugins":[]}"#).unwrap_err();
        assert!(
            parse(r#"{"name":"n","disableCheck":"true","plugins":[]}"#)
                .unwrap()
                .disable_check
        );
    }

    #[test]
    fn a_list_survives_its_record() {
        let text = r#"{"name":"n","cniVersion":"1.1.0","disableGC":true,"plugins":[{"type":"a","x":[1]}]}"#;
        let list = ConfList::from_json(&serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!(ConfList::from_json(&list.to_json()).unwrap(), list);
    }
}
