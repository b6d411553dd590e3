//! Images and their names, in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::objects::Pins;
use super::record::{HoldRecord, ImageRecord};
use crate::digest::Digest;
use crate::image::Image;
use crate::manifest::ImageConfigFile;
use crate::reference::Reference;

/// Fewest digits by which an image may be named.
const MIN_PREFIX: usize = 8;

/// A name that could mean several images.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the image ID prefix {0:?} is ambiguous")]
pub struct AmbiguousName(pub String);

#[derive(Debug)]
pub(crate) struct Entry {
    pub record: ImageRecord,
    pub config: Arc<ImageConfigFile>,
    pub image: Arc<Image>,
    pub _pins: Pins,
}

#[derive(Debug)]
pub(crate) struct Hold {
    pub record: HoldRecord,
    pub _pins: Pins,
}

#[derive(Debug, Default)]
pub(crate) struct Catalog {
    images: BTreeMap<Digest, Entry>,
    /// Tag and digest references to images.
    names: HashMap<String, Digest>,
    pub holds: HashMap<String, Hold>,
}

impl Catalog {
    pub fn images(&self) -> impl Iterator<Item = &Entry> {
        self.images.values()
    }

    pub fn by_id(&self, id: &Digest) -> Option<&Entry> {
        self.images.get(id)
    }

    pub fn id_of_name(&self, name: &str) -> Option<Digest> {
        self.names.get(name).copied()
    }

    /// Puts an image in place of what had its ID, which is returned; its names are its own from now
    /// on.
    pub fn insert(&mut self, entry: Entry) -> Option<Entry> {
        let id = entry.record.id;
        self.names.retain(|_, other| *other != id);
        for name in entry.record.tags.iter().chain(&entry.record.digests) {
            self.names.insert(name.clone(), id);
        }
        self.images.insert(id, entry)
    }

    /// Takes an image out.
    pub fn remove(&mut self, id: &Digest) -> Option<Entry> {
        self.names.retain(|_, other| other != id);
        self.images.remove(id)
    }

    /// Finds an image by ID, ID prefix, or any form of reference.
    pub fn find(&self, name: &str) -> Result<Option<&Entry>, AmbiguousName> {
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        if let Ok(id) = Digest::from_hex(hex) {
            return Ok(self.images.get(&id));
        }
        if let Ok(reference) = name.parse::<Reference>()
            && let Some(id) = self.names.get(&reference.to_string())
        {
            return Ok(self.images.get(id));
        }
        let digits = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !digits || !(MIN_PREFIX..64).contains(&hex.len()) {
            return Ok(None);
        }
        let mut matches = self
            .images
            .iter()
            .filter(|(id, _)| id.hex().starts_with(hex))
            .map(|(_, entry)| entry);
        match (matches.next(), matches.next()) {
            (Some(_), Some(_)) => Err(AmbiguousName(name.to_owned())),
            (found, _) => Ok(found),
        }
    }
}

/// References that must not be removed, from the configuration; a trailing `*` matches any rest.
#[derive(Debug, Default)]
pub(crate) struct PinnedNames {
    exact: Vec<String>,
    prefixes: Vec<String>,
}

impl PinnedNames {
    pub fn new(patterns: &[String]) -> Self {
        let mut names = Self::default();
        for pattern in patterns {
            match pattern.strip_suffix('*') {
                Some(prefix) => names.prefixes.push(prefix.to_owned()),
                None => names.exact.push(
                    pattern
                        .parse::<Reference>()
                        .map_or_else(|_| pattern.clone(), |reference| reference.to_string()),
                ),
            }
        }
        names
    }

    pub fn matches(&self, record: &ImageRecord) -> bool {
        let id = record.id.to_string();
        record
            .tags
            .iter()
            .chain(&record.digests)
            .chain([&id])
            .any(|name| {
                self.exact.contains(name) || self.prefixes.iter().any(|p| name.starts_with(p))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::objects::Objects;
    use crate::store::record::VERSION;

    fn entry(id: Digest, tags: &[&str], digests: &[&str]) -> Entry {
        let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        let record = ImageRecord {
            version: VERSION,
            id,
            artifact: false,
            blobs: Vec::new(),
            layers: Vec::new(),
            tags: strings(tags),
            digests: strings(digests),
            pinned: false,
            pulled_at: 0,
            updated_at: 0,
        };
        let config = Arc::new(ImageConfigFile::default());
        let image = Arc::new(Image::new(&record, &config, 1, false));
        let pins = Arc::new(Objects::default()).pin([]);
        Entry {
            record,
            config,
            image,
            _pins: pins,
        }
    }

    #[test]
    fn an_image_is_found_by_every_name_it_has() {
        let mut catalog = Catalog::default();
        let id = Digest::of(b"one");
        let digest = format!("docker.io/library/a@{}", Digest::of(b"index"));
        catalog.insert(entry(id, &["docker.io/library/a:latest"], &[&digest]));
        let hex = id.hex();
        for name in [
            "a",
            "a:latest",
            "docker.io/a",
            &digest,
            &digest.replace("docker.io/library/a@", "a:other@"),
            &id.to_string(),
            &hex,
            &hex[..13],
            &format!("sha256:{}", &hex[..8]),
        ] {
            assert!(catalog.find(name).unwrap().is_some(), "{name}");
        }
        for name in ["b", "a:other", &hex[..7], "", "!!", &Digest::of(b"x").hex()] {
            assert!(catalog.find(name).unwrap().is_none(), "{name}");
        }
        catalog.remove(&id);
        assert!(catalog.find("a").unwrap().is_none());
    }

    #[test]
    fn pinned_names_are_references_or_prefixes() {
        let pinned = PinnedNames::new(&["pause:3.9".into(), "registry.k8s.io/*".into()]);
        let of = |tag: &str| entry(Digest::of(b"p"), &[tag], &[]).record;
        assert!(pinned.matches(&of("docker.io/library/pause:3.9")));
        assert!(pinned.matches(&of("registry.k8s.io/a/b:c")));
        assert!(!pinned.matches(&of("docker.io/library/pause:3.10")));
    }
}
