//! Whether CNI can be used: the configurations in the folder, their plugins, and what these say.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::timeout;

use super::conf::{self, ConfList};
use super::exec::{PluginError, Subject, Verb};
use super::folder::Watch;
use super::version::Version;
use super::{Cni, Inner, folder};
use crate::network::chain;

/// How old an answer of plugins about their state may be.
const FRESH: Duration = Duration::from_secs(5);
/// The same while something is wrong.
const FRESH_IN_TROUBLE: Duration = Duration::from_secs(1);
/// How long the start of a daemon waits for plugins.
const START_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) lists: Arc<[ConfList]>,
    /// Why no pod can be attached.
    trouble: Option<String>,
    looked: Option<Instant>,
    watch: Option<Watch>,
}

impl Cni {
    /// Looks at the folder now, and whenever it changes. Plugins that do not answer soon are waited
    /// for in the background: until then no pod can be attached, and all else goes on.
    pub(crate) async fn start(&self) {
        let watch = folder::watch(&self.0);
        self.0.state().watch = Some(watch);
        let inner = Arc::clone(&self.0);
        let refreshing = tokio::spawn(async move { inner.refresh().await });
        drop(timeout(START_WAIT, refreshing).await);
    }

    /// Why no pod can be attached; None if one can. If that was found out some time ago, it is
    /// looked at again in the background for the next call.
    pub(crate) fn trouble(&self) -> Option<String> {
        let (trouble, stale) = {
            let state = self.0.state();
            let asks = state
                .lists
                .iter()
                .any(|list| list.version >= Version::STATUS_AND_GC);
            let fresh = if state.trouble.is_some() {
                FRESH_IN_TROUBLE
            } else {
                FRESH
            };
            let old = state.looked.is_none_or(|looked| looked.elapsed() > fresh);
            (
                state.trouble.clone(),
                old && (asks || state.trouble.is_some()),
            )
        };
        if stale && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let inner = Arc::clone(&self.0);
            runtime.spawn(async move {
                // One at a time: whoever comes meanwhile sees its result.
                if inner.refreshing.try_lock().is_ok() {
                    inner.refresh().await;
                }
            });
        }
        trouble
    }
}

impl Inner {
    pub(super) async fn refresh(&self) {
        let _refreshing = self.refreshing.lock().await;
        let (folder, limit) = (self.folder.clone(), self.limit);
        let loaded = tokio::task::spawn_blocking(move || conf::load(&folder, limit)).await;
        let (lists, mut trouble) = match loaded {
            Ok(Ok(loaded)) => {
                let errors: Vec<String> = loaded.errors.iter().map(|e| chain(e)).collect();
                self.report(&errors);
                let none = loaded.lists.is_empty().then(|| self.none(&errors));
                (loaded.lists, none)
            }
            Ok(Err(error)) => (Vec::new(), Some(self.none(&[chain(&error)]))),
            Err(error) => (Vec::new(), Some(self.none(&[error.to_string()]))),
        };
        if !lists.is_empty() {
            self.remember();
        }
        let lists: Arc<[ConfList]> = lists.into();
        let new = {
            let mut state = self.state();
            let new = state.lists != lists;
            if state.looked.is_none() && trouble.is_none() {
                state.lists = Arc::clone(&lists);
                state.trouble = Some("the CNI plugins have not answered yet".to_owned());
            }
            new
        };
        for list in lists.iter() {
            if let Err(error) = self.ask(list, new).await {
                trouble = Some(format!("CNI network {}: {}", list.name, chain(&error)));
            }
        }
        let mut state = self.state();
        if state.trouble != trouble {
            match &trouble {
                Some(trouble) => tracing::warn!(trouble, "CNI is not ready"),
                None => tracing::info!("CNI is ready"),
            }
        }
        state.lists = lists;
        state.trouble = trouble;
        state.looked = Some(Instant::now());
    }

    fn none(&self, errors: &[String]) -> String {
        let folder = self.folder.display();
        let because = if errors.is_empty() {
            String::new()
        } else {
            format!(": {}", errors.join("; "))
        };
        format!("no usable CNI configuration in {folder}{because}")
    }

    fn report(&self, errors: &[String]) {
        for error in errors {
            tracing::debug!(error, "CNI configuration is left out");
        }
    }

    fn remember(&self) {
        let Some(marker) = &self.marker else { return };
        if self.seen.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::info!(folder = %self.folder.display(), "first CNI configuration seen");
        if let Err(error) = std::fs::write(marker, "") {
            tracing::error!(path = %marker.display(), %error, "this can't be remembered");
        }
    }

    /// Plugins must be there and, when new, know the list's version; since 1.1 they are asked
    /// whether they can do their work.
    async fn ask(&self, list: &ConfList, new: bool) -> Result<(), PluginError> {
        for plugin in &list.plugins {
            self.executor.find(&plugin.kind)?;
            if new {
                self.ask_version(list, &plugin.kind).await?;
            }
            if list.version >= Version::STATUS_AND_GC {
                let mut conf = plugin.conf.clone();
                conf.insert("name".to_owned(), json!(list.name));
                conf.insert("cniVersion".to_owned(), json!(list.version.to_string()));
                let (input, nobody) = (Value::Object(conf), Subject::default());
                self.executor
                    .run(Verb::Status, &plugin.kind, &input, &nobody)
                    .await?;
            }
        }
        Ok(())
    }

    async fn ask_version(&self, list: &ConfList, plugin: &str) -> Result<(), PluginError> {
        let input = json!({"cniVersion": list.version.to_string()});
        let nobody = Subject::default();
        let output = self
            .executor
            .run(Verb::Version, plugin, &input, &nobody)
            .await?;
        let answer: Value = serde_json::from_slice(&output).unwrap_or_default();
        let versions = answer.get("supportedVersions").and_then(Value::as_array);
        let mut known = versions
            .into_iter()
            .flatten()
            .filter_map(|v| v.as_str()?.parse().ok());
        if known.any(|version: Version| version == list.version) {
            return Ok(());
        }
        Err(PluginError::Version {
            plugin: plugin.to_owned(),
            version: list.version.to_string(),
        })
    }
}
