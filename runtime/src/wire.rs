//! Values as the shim's protocol has them.

use std::path::{Path, PathBuf};

use joey_proto::shim;

use crate::model::IdMapping;

pub(crate) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

pub(crate) fn texts(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| text(path)).collect()
}

pub(crate) fn id_mappings(mappings: &[IdMapping]) -> Vec<shim::IdMapping> {
    mappings
        .iter()
        .map(|mapping| shim::IdMapping {
            host_id: mapping.host_id,
            container_id: mapping.container_id,
            size: mapping.size,
        })
        .collect()
}
