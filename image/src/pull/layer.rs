//! One layer: fetched, hashed, decompressed, hashed again and written, all in one stream.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use joey_p2p::{BlobRange, BlobSource, FetchError};

use super::places::PullPlaces;
use super::progress::{Progress, ProgressEvent};
use super::stream::{self, ChannelReader, HashingReader};
use crate::background;
use crate::digest::Digest;
use crate::store::commit::push_new;
use crate::store::core::Core;
use crate::store::objects::{Key, Present};
use crate::store::record::{self, LAYER_RECORD, LayerRecord};
use crate::unpack::{UnpackError, Unpacked};

/// Beyond the first gibibyte, a compressed byte may not unpack to more than this many.
const MAX_RATIO: u64 = 2000;
/// Largest window of a zstd frame: 2^27 bytes, what the format obliges decoders to support.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Why a layer could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Its blob could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The blob is not what the manifest says.
    #[error("the blob has the digest {0}")]
    Digest(Digest),
    /// The tar is not what the config says.
    #[error("it unpacks to {got}, the config says {expected}")]
    DiffId {
        /// What the config says.
        expected: Digest,
        /// What came out.
        got: Digest,
    },
    /// It could not be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// The store's own files.
    #[error("cannot keep the layer")]
    Store(#[source] io::Error),
    /// The thread that unpacked it ended by a bug.
    #[error("unpacking ended unexpectedly")]
    Panicked,
}

impl LayerError {
    /// Whether the same pull may succeed later without anything changing here.
    pub(crate) fn is_from_outside(&self) -> bool {
        matches!(self, Self::Fetch(_))
    }

    pub(crate) fn is_no_space(&self) -> bool {
        match self {
            Self::Unpack(error) => error.is_no_space(),
            Self::Store(error) => error.kind() == io::ErrorKind::StorageFull,
            _ => false,
        }
    }
}

/// A layer to be had.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub chain_id: Digest,
    pub blob: Digest,
    pub size: u64,
    /// Digest of the tar; `None` for an artifact, whose layers have only their blob's digest.
    pub diff_id: Option<Digest>,
    /// Whom the caller asked for the image.
    pub registry: String,
    /// Whether the repository gave this very image before.
    pub given_before: bool,
}

/// A folder that is thrown away unless it is moved into place.
#[derive(Debug)]
struct Stage {
    core: Arc<Core>,
    folder: PathBuf,
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = self.core.layout.discard(&self.folder) {
            tracing::warn!(folder = %self.folder.display(), %error, "cannot discard");
        }
        self.core.objects.wake.notify_one();
    }
}

/// A layer that is written but not yet in place: the layers below come first.
#[derive(Debug)]
pub(crate) struct Staged {
    stage: Stage,
    job: Job,
    written: Unpacked,
    /// Others that want the layer wait for this.
    _lock: tokio::sync::OwnedMutexGuard<()>,
}

/// Where a layer is after its job.
#[derive(Debug)]
pub(crate) enum Outcome {
    InPlace,
    Staged(Box<Staged>),
}

/// Gets a layer, or waits for whoever is getting it. The caller has pinned it.
pub(crate) async fn obtain(
    core: Arc<Core>,
    source: Arc<dyn BlobSource>,
    job: Job,
    places: PullPlaces,
    progress: Progress,
) -> Result<Outcome, LayerError> {
    let key = Key::Layer(job.chain_id);
    let lock = core.objects.lock(key).await;
    let present = core.objects.present(key);
    // A config may name any layer, and a manifest any blob. Only a registry that had the layer is
    // trusted to give it to those alone who may have it; others have to give it first.
    if present.as_ref().is_some_and(|p| {
        p.sources.contains(&job.blob) && (job.given_before || p.registries.contains(&job.registry))
    }) {
        progress.event(&ProgressEvent::LayerPresent { digest: job.blob });
        return Ok(Outcome::InPlace);
    }
    let place = places.take().await;
    let outcome = match present {
        Some(present) => {
            transfer(&core, source, &job, None, &progress).await?;
            add_source(&core, &job, present).await?;
            Outcome::InPlace
        }
        None => {
            let folder = core.layout.stage().map_err(LayerError::Store)?;
            let stage = Stage {
                core: Arc::clone(&core),
                folder,
            };
            let (written, stage) = transfer(&core, source, &job, Some(stage), &progress).await?;
            // A stage that went in comes out again.
            let stage = stage.ok_or(LayerError::Panicked)?;
            Outcome::Staged(Box::new(Staged {
                stage,
                job: job.clone(),
                written,
                _lock: lock,
            }))
        }
    };
    drop(place);
    progress.event(&ProgressEvent::LayerDone { digest: job.blob });
    Ok(outcome)
}

/// Streams the blob through all checks, into the stage if there is one.
async fn transfer(
    core: &Arc<Core>,
    source: Arc<dyn BlobSource>,
    job: &Job,
    stage: Option<Stage>,
    progress: &Progress,
) -> Result<(Unpacked, Option<Stage>), LayerError> {
    let (sink, reader) = stream::bridge();
    let mut counter = progress.layer(job.blob);
    let blob = BlobRange::whole(job.blob.to_string(), job.size);
    let pump = stream::pump(source, blob, sink, move |bytes| counter.add(bytes));
    let write = {
        let (core, job) = (Arc::clone(core), job.clone());
        // The stage goes along: nobody may clear it away while the thread still writes.
        background::run(move || {
            let folder = stage.as_ref().map(|stage| stage.folder.as_path());
            let written = write(&core, &job, folder, reader)?;
            Ok((written, stage))
        })
    };
    let (pumped, written) = tokio::join!(pump, write);
    // A broken transfer looks like a broken tar to the writer: the transfer's error says more.
    pumped?;
    written.map_err(LayerError::Store)?
}

/// The blocking side of [`transfer`].
fn write(
    core: &Core,
    job: &Job,
    folder: Option<&Path>,
    mut reader: ChannelReader,
) -> Result<Unpacked, LayerError> {
    let limit = job
        .size
        .saturating_mul(MAX_RATIO)
        .saturating_add(1 << 30)
        .min(core.limits.bytes);
    let read = |error| LayerError::Unpack(UnpackError::Read(error));
    let decoder = decoder(&mut reader).map_err(read)?;
    let mut tar = HashingReader::new(decoder, limit);
    let written = match folder {
        Some(folder) => core.format.write(&mut tar, folder, &core.limits)?,
        None => Unpacked::default(),
    };
    let diff_id = tar.finish().map_err(read)?;
    let blob = reader.finish();
    if blob != job.blob {
        return Err(LayerError::Digest(blob));
    }
    match job.diff_id {
        Some(expected) if expected != diff_id => Err(LayerError::DiffId {
            expected,
            got: diff_id,
        }),
        _ => Ok(written),
    }
}

/// Media types are sometimes wrong about compression; the first bytes are not.
fn decoder(reader: &mut ChannelReader) -> io::Result<Box<dyn Read + '_>> {
    Ok(match reader.peek(4) {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
            let mut zstd = zstd::stream::read::Decoder::with_buffer(reader)?;
            zstd.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(zstd)
        }
        _ => Box::new(reader),
    })
}

async fn add_source(core: &Arc<Core>, job: &Job, mut present: Present) -> Result<(), LayerError> {
    push_new(&mut present.sources, &job.blob);
    push_new(&mut present.registries, &job.registry);
    let path = core.layout.layer(&job.chain_id).join(LAYER_RECORD);
    let text = encode(job.chain_id, &present)?;
    core.blocking(move || {
        crate::store::layout::replace(&path, &text, crate::store::layout::Durability::Synced)
    })
    .await
    .map_err(LayerError::Store)?;
    core.objects.insert(Key::Layer(job.chain_id), present);
    Ok(())
}

fn encode(chain_id: Digest, present: &Present) -> Result<Vec<u8>, LayerError> {
    record::encode(&LayerRecord {
        version: record::VERSION,
        chain_id,
        sources: present.sources.clone(),
        registries: present.registries.clone(),
        bytes: present.bytes,
        inodes: present.inodes,
    })
    .map_err(LayerError::Store)
}

impl Staged {
    /// Completes the layer, whose lower layers (topmost first) are in place, and moves it there.
    pub async fn land(self, lowers: Vec<PathBuf>) -> Result<(), LayerError> {
        let landing = tokio::task::spawn_blocking(move || self.land_blocking(&lowers));
        landing.await.map_err(|_| LayerError::Panicked)?
    }

    fn land_blocking(self, lowers: &[PathBuf]) -> Result<(), LayerError> {
        let (core, folder) = (&self.stage.core, &self.stage.folder);
        core.format.complete(folder, &self.written, lowers)?;
        let present = Present {
            // The record and the layer's folder come on top.
            bytes: self.written.bytes + 2 * 4096,
            inodes: self.written.inodes + 2,
            durable: false,
            sources: vec![self.job.blob],
            registries: vec![self.job.registry.clone()],
        };
        let text = encode(self.job.chain_id, &present)?;
        joey_failpoint::hit("image.layer.record").map_err(LayerError::Store)?;
        std::fs::write(folder.join(LAYER_RECORD), text).map_err(LayerError::Store)?;
        let place = core.layout.layer(&self.job.chain_id);
        // What a dead process left there is not known to be whole.
        core.layout.discard(&place).map_err(LayerError::Store)?;
        joey_failpoint::hit("image.layer.rename").map_err(LayerError::Store)?;
        std::fs::rename(folder, &place).map_err(LayerError::Store)?;
        core.objects.insert(Key::Layer(self.job.chain_id), present);
        Ok(())
    }
}
