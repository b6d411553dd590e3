//! From a reference to a manifest and a config, asking the registry with the caller's credentials.

use std::sync::Arc;

use bytes::Bytes;
use joey_p2p::BlobSource;

use super::PullError;
use super::stream;
use crate::digest::Digest;
use crate::manifest::{self, Descriptor, Document, ImageConfigFile, Manifest, ManifestError};
use crate::reference::{Reference, Target};
use crate::registry::{Fetched, Session};
use crate::store::core::Core;

/// Indexes within indexes.
const MAX_DEPTH: usize = 3;

/// Everything about an image but its layers.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// Digest of what the reference means: index or manifest.
    pub top: Digest,
    /// The image's ID.
    pub id: Digest,
    pub manifest: Manifest,
    pub config: ImageConfigFile,
    /// All documents, to be kept.
    pub blobs: Vec<(Digest, Bytes)>,
    /// Whether the repository gave this very image before.
    pub given_before: bool,
}

/// Resolves a reference. The registry is asked in any case: it alone knows whether this caller may
/// read the image. What is here already is not fetched again where the repository gave it before.
pub(crate) async fn resolve(
    core: &Arc<Core>,
    session: &Arc<Session>,
    reference: &Reference,
) -> Result<Resolved, PullError> {
    let malformed = |source| PullError::Manifest {
        reference: reference.to_string(),
        source,
    };
    let mut document = top_document(core, session, reference).await?;
    let top = document.digest;
    let known = given_before(core, reference, top);
    let mut blobs = Vec::new();
    let mut depth = 0;
    let (manifest, digest) = loop {
        blobs.push((document.digest, document.bytes.clone()));
        let parsed = manifest::parse(&document.bytes, &document.media_type).map_err(malformed)?;
        match parsed {
            Document::Manifest(manifest) => break (manifest, document.digest),
            Document::Index(entries) => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(malformed(ManifestError::TooDeep(MAX_DEPTH)));
                }
                let chosen = manifest::select(&entries, &core.platform).map_err(malformed)?;
                document = child(core, session, chosen, known).await?;
            }
        }
    };
    if !manifest.is_image {
        return Ok(Resolved {
            top,
            id: digest,
            manifest,
            config: ImageConfigFile::default(),
            blobs,
            given_before: known,
        });
    }
    let bytes = config_blob(core, session, &manifest.config, reference, known).await?;
    let config = ImageConfigFile::parse(&bytes)
        .and_then(|config| {
            config.check(manifest.layers.len(), &core.platform)?;
            Ok(config)
        })
        .map_err(malformed)?;
    blobs.push((manifest.config.digest, bytes));
    Ok(Resolved {
        top,
        id: manifest.config.digest,
        manifest,
        config,
        blobs,
        given_before: known,
    })
}

/// Whether this very repository gave a document before. A registry's word for a digest is no proof
/// that it has the content: any registry could name another's private image.
fn given_before(core: &Core, reference: &Reference, digest: Digest) -> bool {
    let name = reference.with_digest(digest).to_string();
    core.catalog.lock().id_of_name(&name).is_some()
}

async fn top_document(
    core: &Arc<Core>,
    session: &Session,
    reference: &Reference,
) -> Result<Fetched, PullError> {
    // A HEAD pays only where it may save the GET; it is not counted by rate limits.
    let known = match reference.target() {
        Target::Tag(_) => {
            let name = reference.to_string();
            core.catalog.lock().id_of_name(&name).is_some()
        }
        Target::Digest(digest) => given_before(core, reference, *digest),
    };
    if known
        && let Some(digest) = session.head().await?
        && match_target(reference.target(), digest)
        && given_before(core, reference, digest)
        && let Some(bytes) = core.local_blob(digest).await
    {
        return Ok(Fetched {
            digest,
            media_type: String::new(),
            bytes,
        });
    }
    Ok(session.resolve().await?)
}

fn match_target(target: &Target, digest: Digest) -> bool {
    match target {
        Target::Tag(_) => true,
        Target::Digest(wanted) => *wanted == digest,
    }
}

async fn child(
    core: &Arc<Core>,
    session: &Session,
    descriptor: &Descriptor,
    known: bool,
) -> Result<Fetched, PullError> {
    if known && let Some(bytes) = core.local_blob(descriptor.digest).await {
        return Ok(Fetched {
            digest: descriptor.digest,
            media_type: descriptor.media_type.clone(),
            bytes,
        });
    }
    Ok(session.manifest(&Target::Digest(descriptor.digest)).await?)
}

async fn config_blob(
    core: &Arc<Core>,
    session: &Arc<Session>,
    descriptor: &Descriptor,
    reference: &Reference,
    known: bool,
) -> Result<Bytes, PullError> {
    if descriptor.size > manifest::MAX_CONFIG {
        return Err(PullError::Manifest {
            reference: reference.to_string(),
            source: ManifestError::TooLarge {
                what: "an image config",
                size: descriptor.size,
                limit: manifest::MAX_CONFIG,
            },
        });
    }
    if known && let Some(bytes) = core.local_blob(descriptor.digest).await {
        return Ok(bytes);
    }
    let source: Arc<dyn BlobSource> = session.clone();
    stream::fetch_small(source, descriptor.digest, descriptor.size)
        .await
        .map_err(|source| PullError::Config {
            digest: descriptor.digest,
            source,
        })
}
