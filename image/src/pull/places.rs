//! How many layers are fetched and unpacked at once.
//!
//! Each costs memory and a thread, so there is a bound for all pulls together. A registry that is
//! slow, or wants to be, has no more than its part of it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Images whose layers may come at full width: of one registry, and of all.
const IMAGES_OF_REGISTRY: usize = 2;
const IMAGES: usize = 4;

/// The places of a store.
#[derive(Debug)]
pub(crate) struct Places {
    per_image: usize,
    all: Arc<Semaphore>,
    registries: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// The places that one pull may use.
#[derive(Debug, Clone)]
pub(crate) struct PullPlaces {
    /// The narrowest first: who waits for one holds none that another pull could use.
    levels: [Arc<Semaphore>; 3],
}

/// Taken until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _permits: Vec<OwnedSemaphorePermit>,
}

impl Places {
    /// `per_image`: layers of one image at once.
    pub fn new(per_image: usize) -> Self {
        let per_image = per_image.clamp(1, Semaphore::MAX_PERMITS / IMAGES);
        Self {
            per_image,
            all: Arc::new(Semaphore::new(per_image * IMAGES)),
            registries: Mutex::default(),
        }
    }

    /// For a pull from a registry.
    pub fn of_pull(&self, registry: &str) -> PullPlaces {
        let mut registries = self.registries.lock();
        let known = registries.get(registry).and_then(Weak::upgrade);
        let of_registry = known.unwrap_or_else(|| {
            registries.retain(|_, places| places.strong_count() > 0);
            let places = Arc::new(Semaphore::new(self.per_image * IMAGES_OF_REGISTRY));
            registries.insert(registry.to_owned(), Arc::downgrade(&places));
            places
        });
        let of_pull = Arc::new(Semaphore::new(self.per_image));
        PullPlaces {
            levels: [of_pull, of_registry, Arc::clone(&self.all)],
        }
    }
}

impl PullPlaces {
    /// Waits for a place.
    pub async fn take(&self) -> Place {
        let mut permits = Vec::with_capacity(self.levels.len());
        for level in &self.levels {
            // They are never closed.
            permits.extend(Arc::clone(level).acquire_owned().await);
        }
        Place { _permits: permits }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn taken(places: &PullPlaces, most: usize) -> Vec<Place> {
        (0..most)
            .map_while(|_| places.take().now_or_never())
            .collect()
    }

    #[test]
    fn a_pull_a_registry_and_all_together_have_bounds() {
        let places = Places::new(2);
        let slow = [(); 3].map(|()| places.of_pull("slow.example"));
        let held = slow.each_ref().map(|pull| taken(pull, 9));
        assert_eq!(held.each_ref().map(Vec::len), [2, 2, 0]);
        let other = [(); 3].map(|()| places.of_pull("other.example"));
        let others = other.each_ref().map(|pull| taken(pull, 9));
        assert_eq!(others.each_ref().map(Vec::len), [2, 2, 0]);
        let third = places.of_pull("third.example");
        assert!(taken(&third, 9).is_empty(), "more than all may have");
        drop(held);
        assert_eq!(taken(&third, 9).len(), 2);
    }

    #[test]
    fn registries_are_forgotten_with_their_last_pull() {
        let places = Places::new(1);
        for number in 0..100 {
            drop(places.of_pull(&format!("{number}.example")));
        }
        assert_eq!(places.registries.lock().len(), 1);
    }
}
