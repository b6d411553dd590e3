//! The limits of containers and pods: what they are made of, changing them while they live, and
//! making them right again after somebody else changed them.

mod overlay;
mod restore;
mod update;

pub use overlay::Overlay;
pub(crate) use overlay::compose;
pub use update::LiveUpdate;
