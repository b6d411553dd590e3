//! Finds containers by name, id or the beginning of an id.

use std::sync::Arc;

use joey_runtime::Container;
use joey_runtime::model::Owner;

use super::State;
use super::status::Failure;

impl State {
    /// Joey's containers, the newest first.
    pub(super) fn containers(&self) -> Vec<Arc<Container>> {
        let mut containers = self.runtime.containers(Owner::Joey);
        containers.sort_by_key(|container| std::cmp::Reverse(container.record().created_at));
        containers
    }

    /// The container that `name` names: by name, id or a beginning that only its id has.
    pub(super) fn find(&self, name: &str) -> Result<Arc<Container>, Failure> {
        let containers = self.containers();
        let exact = |container: &&Arc<Container>| {
            container.id() == name || container.record().config.name == name
        };
        if let Some(container) = containers.iter().find(exact) {
            return Ok(Arc::clone(container));
        }
        let mut matches = containers
            .iter()
            .filter(|container| container.id().starts_with(name));
        match (matches.next(), matches.next()) {
            (Some(container), None) if !name.is_empty() => Ok(Arc::clone(container)),
            (Some(_), Some(_)) if !name.is_empty() => Err(Failure::Ambiguous(name.to_owned())),
            _ => Err(Failure::NotFound {
                kind: "container",
                name: name.to_owned(),
            }),
        }
    }
}
