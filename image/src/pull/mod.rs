//! Pulling an image.
//!
//! A pull is a task of its own: a caller who goes away leaves it running, and the image is there
//! when it asks again. Pulls that need the same layer wait for the first to get it.

mod layer;
pub(crate) mod places;
mod progress;
mod resolve;
mod stream;

use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use joey_p2p::{BlobSource, FetchError, FetchErrorKind};
use tokio::task::JoinSet;
use tracing::{Instrument as _, debug_span};

pub use layer::LayerError;
pub use progress::{ProgressEvent, ProgressSink};

use crate::auth::Credentials;
use crate::digest::Digest;
use crate::image::Image;
use crate::manifest::{self, ManifestError};
use crate::reference::{Reference, ReferenceError, Target};
use crate::registry::{RegistryError, Session};
use crate::store::commit::{self, CommitError, NewImage};
use crate::store::core::Core;
use crate::store::objects::{Key, Pins};
use layer::{Job, Outcome};
use places::PullPlaces;
use progress::Progress;
use resolve::Resolved;

/// How long the layers of a pull that broke off are kept for its repetition.
const KEEP_AFTER_FAILURE: Duration = Duration::from_secs(600);

/// What to pull, and as whom.
#[derive(Clone, Default)]
pub struct PullRequest {
    /// The image, in any form of reference.
    pub reference: String,
    /// The caller's credentials; `None` pulls anonymously.
    pub auth: Option<Credentials>,
    /// Hears how the pull goes.
    pub progress: Option<Arc<dyn ProgressSink>>,
}

impl fmt::Debug for PullRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullRequest")
            .field("reference", &self.reference)
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}

/// Why an image could not be pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The name is no reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The registry, its configuration, or the caller's rights there.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The image is malformed, or nothing for this machine.
    #[error("cannot use {reference}")]
    Manifest {
        /// The image.
        reference: String,
        /// Why not.
        #[source]
        source: ManifestError,
    },
    /// The config could not be fetched.
    #[error("{}cannot fetch the config {digest}", prefix(source))]
    Config {
        /// Its digest.
        digest: Digest,
        /// Why not.
        #[source]
        source: FetchError,
    },
    /// A layer could not be had.
    #[error("{}cannot get layer {digest}", layer_prefix(source))]
    Layer {
        /// Digest of its blob.
        digest: Digest,
        /// Why not.
        #[source]
        source: LayerError,
    },
    /// There is no room for a layer.
    #[error("cannot get layer {digest}: {} is full", store.display())]
    Full {
        /// Digest of its blob.
        digest: Digest,
        /// The store's folder.
        store: PathBuf,
        /// What found no room.
        #[source]
        source: Box<LayerError>,
    },
    /// The image could not be recorded.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The pull's task ended by a bug, or the daemon is going down.
    #[error("the pull was broken off")]
    Aborted,
}

/// What an error of a pull means to its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullErrorKind {
    /// The request itself is wrong.
    InvalidRequest,
    /// There is no such image.
    NotFound,
    /// The credentials do not suffice.
    Denied,
    /// The registry wants fewer requests.
    RateLimited,
    /// The registry cannot be reached.
    Unavailable,
    /// The disk is full.
    NoSpace,
    /// The image cannot be used here.
    UnusableImage,
    /// Anything else.
    Other,
}

impl PullError {
    /// What it means to the caller.
    #[must_use]
    pub fn kind(&self) -> PullErrorKind {
        match self {
            Self::Reference(_) | Self::Registry(RegistryError::Credentials(_)) => {
                PullErrorKind::InvalidRequest
            }
            Self::Registry(RegistryError::NotFound { .. }) => PullErrorKind::NotFound,
            Self::Registry(RegistryError::Denied { .. }) => PullErrorKind::Denied,
            Self::Registry(RegistryError::RateLimited { .. }) => PullErrorKind::RateLimited,
            Self::Registry(RegistryError::Unavailable { .. }) => PullErrorKind::Unavailable,
            Self::Manifest { .. } => PullErrorKind::UnusableImage,
            Self::Full { .. } => PullErrorKind::NoSpace,
            Self::Commit(error) if error.is_no_space() => PullErrorKind::NoSpace,
            Self::Config { source, .. }
            | Self::Layer {
                source: LayerError::Fetch(source),
                ..
            } => fetch_kind(source),
            Self::Registry(_) | Self::Layer { .. } | Self::Commit(_) | Self::Aborted => {
                PullErrorKind::Other
            }
        }
    }

    fn is_from_outside(&self) -> bool {
        match self {
            Self::Registry(_) | Self::Config { .. } => true,
            Self::Layer { source, .. } => source.is_from_outside(),
            _ => false,
        }
    }
}

/// The kubelet looks at the start of the text.
fn prefix(error: &FetchError) -> &'static str {
    match fetch_kind(error) {
        PullErrorKind::Unavailable => "RegistryUnavailable: ",
        _ => "",
    }
}

fn layer_prefix(error: &LayerError) -> &'static str {
    match error {
        LayerError::Fetch(error) => prefix(error),
        _ => "",
    }
}

fn fetch_kind(error: &FetchError) -> PullErrorKind {
    match error.kind {
        FetchErrorKind::NotFound => PullErrorKind::NotFound,
        FetchErrorKind::Denied => PullErrorKind::Denied,
        FetchErrorKind::RateLimited { .. } => PullErrorKind::RateLimited,
        FetchErrorKind::Interrupted | FetchErrorKind::Stalled => PullErrorKind::Unavailable,
        FetchErrorKind::Invalid => PullErrorKind::Other,
    }
}

/// Asks a registry whether it takes some credentials.
pub(crate) async fn check_login(
    core: Arc<Core>,
    registry: &str,
    credentials: Credentials,
) -> Result<(), PullError> {
    // Any repository does: what is asked for is of none.
    let reference = format!("{registry}/login").parse()?;
    let session = session(&core, &reference, Some(credentials)).await?;
    Ok(session.check_login().await?)
}

async fn session(
    core: &Arc<Core>,
    reference: &Reference,
    credentials: Option<Credentials>,
) -> Result<Session, PullError> {
    let (core, reference) = (Arc::clone(core), reference.clone());
    let opened = tokio::task::spawn_blocking(move || {
        core.registries.session(&reference, credentials.as_ref())
    });
    Ok(opened.await.map_err(|_| PullError::Aborted)??)
}

/// Pulls an image; the body of a pull's task.
pub(crate) async fn run(core: Arc<Core>, request: PullRequest) -> Result<Arc<Image>, PullError> {
    let reference: Reference = request.reference.parse()?;
    let progress = Progress(request.progress);
    let session = Arc::new(session(&core, &reference, request.auth).await?);
    let resolved = resolve::resolve(&core, &session, &reference)
        .instrument(debug_span!("resolve image", %reference))
        .await?;
    progress.event(&ProgressEvent::Resolved {
        digest: resolved.top,
        layers: resolved
            .manifest
            .layers
            .iter()
            .map(|layer| (layer.digest, layer.size))
            .collect(),
    });
    let jobs = jobs(&resolved, reference.host());
    let chain: Vec<Digest> = jobs.iter().map(|job| job.chain_id).collect();
    let keys = chain.iter().copied().map(Key::Layer);
    let blobs = resolved.blobs.iter().map(|(digest, _)| Key::Blob(*digest));
    let pins = core.objects.pin(keys.chain(blobs));
    let places = core.places.of_pull(reference.host());
    let root = core.layout.root.clone();
    let disk = core.blocking(move || File::open(root)).await;
    let disk = disk.map_err(|error| CommitError::new("open", core.layout.root.clone(), error))?;
    if let Err(error) = layers(&core, session, jobs, places, &progress).await {
        if error.is_from_outside() {
            keep_for_retry(pins);
        }
        return Err(error);
    }
    progress.event(&ProgressEvent::Committing);
    let new = NewImage {
        id: resolved.id,
        artifact: !resolved.manifest.is_image,
        config: resolved.config,
        blobs: resolved.blobs,
        layers: chain,
        tag: match reference.target() {
            Target::Tag(_) => Some(reference.to_string()),
            Target::Digest(_) => None,
        },
        digest: reference.with_digest(resolved.top).to_string(),
    };
    let commit = commit::commit(&core, new, disk, pins);
    Ok(commit.instrument(debug_span!("commit image")).await?)
}

fn keep_for_retry(pins: Pins) {
    tokio::spawn(async move {
        tokio::time::sleep(KEEP_AFTER_FAILURE).await;
        drop(pins);
    });
}

fn jobs(resolved: &Resolved, registry: &str) -> Vec<Job> {
    let layers = &resolved.manifest.layers;
    let image = resolved.manifest.is_image;
    let chain = if image {
        manifest::chain_ids(&resolved.config.diff_ids)
    } else {
        // An artifact has no digests of its tars; its blobs' stand in for them, marked so that they
        // never meet those of images.
        let marked: Vec<Digest> = layers
            .iter()
            .map(|layer| Digest::of(format!("artifact {}", layer.digest).as_bytes()))
            .collect();
        manifest::chain_ids(&marked)
    };
    layers
        .iter()
        .zip(chain)
        .enumerate()
        .map(|(index, (layer, chain_id))| Job {
            chain_id,
            blob: layer.digest,
            size: layer.size,
            diff_id: if image {
                resolved.config.diff_ids.get(index).copied()
            } else {
                None
            },
            registry: registry.to_owned(),
            given_before: resolved.given_before,
        })
        .collect()
}

/// Gets all layers, the largest first, and puts them in place from the lowest up.
async fn layers(
    core: &Arc<Core>,
    source: Arc<dyn BlobSource>,
    jobs: Vec<Job>,
    places: PullPlaces,
    progress: &Progress,
) -> Result<(), PullError> {
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(jobs[*index].size));
    let mut tasks = JoinSet::new();
    for index in order {
        let (core, source) = (Arc::clone(core), Arc::clone(&source));
        let (job, places, progress) = (jobs[index].clone(), places.clone(), progress.clone());
        let span = debug_span!("get layer", digest = %job.blob, bytes = job.size);
        let obtain = async move {
            (
                index,
                layer::obtain(core, source, job, places, progress).await,
            )
        };
        tasks.spawn(obtain.instrument(span));
    }
    let mut waiting: Vec<Option<Outcome>> = jobs.iter().map(|_| None).collect();
    let mut landed = 0;
    // Topmost first, as overlayfs wants them.
    let mut lowers: Vec<PathBuf> = Vec::with_capacity(jobs.len());
    while let Some(done) = tasks.join_next().await {
        let (index, outcome) = done.map_err(|_| PullError::Aborted)?;
        let failed = |index: usize, source: LayerError| {
            let digest = jobs[index].blob;
            if source.is_no_space() {
                let store = core.layout.root.clone();
                return PullError::Full {
                    digest,
                    store,
                    source: Box::new(source),
                };
            }
            PullError::Layer { digest, source }
        };
        waiting[index] = Some(outcome.map_err(|error| failed(index, error))?);
        while let Some(outcome) = waiting.get_mut(landed).and_then(Option::take) {
            if let Outcome::Staged(staged) = outcome {
                let land = staged.land(lowers.clone());
                land.await.map_err(|error| failed(landed, error))?;
            }
            let folder = core.layout.layer(&jobs[landed].chain_id);
            lowers.insert(0, core.format.lower(&folder));
            landed += 1;
        }
    }
    Ok(())
}
