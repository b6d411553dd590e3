//! Container images: references, registries, and the store of what has been pulled.
//!
//! [`ImageStore`] is the way in. Blobs come from a [`joey_p2p::BlobSource`], today a registry; each
//! layer is fetched, verified, decompressed, verified again and unpacked in one stream. Images are
//! recorded in one file each and are durable before anyone hears of them.

mod auth;
mod background;
mod digest;
#[cfg(fuzzing)]
pub mod fuzzing;
mod image;
mod layer;
mod manifest;
mod platform;
mod pull;
mod reference;
mod registry;
mod store;
mod unpack;

/// Most characters of a foreign text in an error.
const SHOWN: usize = 200;

/// A foreign text for an error, which becomes a header of an answer and a line of a log.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

pub use auth::{Credentials, CredentialsError};
pub use digest::{Digest, DigestError};
pub use image::{Image, LayerLease};
pub use manifest::{ContainerConfig, ManifestError};
pub use pull::{LayerError, ProgressEvent, ProgressSink, PullError, PullErrorKind, PullRequest};
pub use reference::{Reference, ReferenceError, Target};
pub use registry::{Failures, HostsError, RegistryError};
pub use store::{
    AmbiguousName, CommitError, FsInfo, GcReport, ImageConfig, ImageStore, LeaseError, OpenError,
    PinError, RemoveError,
};
pub use unpack::{UnpackError, UnpackLimits};
