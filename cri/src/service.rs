//! The service: what the RPCs are answered from.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use joey_image::ImageStore;
use joey_proto::cri::image_service_server::ImageServiceServer;
use joey_proto::cri::runtime_service_server::RuntimeServiceServer;
use joey_runtime::model::{ContainerRecord, Owner};
use joey_runtime::{Container, Pod, Runtime};

use crate::reply::ImageNames;
use crate::status::{Failure, Result, invalid};

/// What a client may send in one message; clients take as much.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// What the service says of itself.
#[derive(Debug, Clone)]
pub struct Options {
    /// The runtime's version, semantic.
    pub version: String,
    /// The configuration in force, shown by a verbose Status.
    pub config: serde_json::Value,
}

/// RuntimeService and ImageService over one runtime and one image store. Clones share both.
#[derive(Debug, Clone)]
pub struct Service {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) images: Arc<ImageStore>,
    pub(crate) streaming: Arc<joey_streaming::Server>,
    pub(crate) options: Arc<Options>,
}

impl Service {
    /// A service; `streaming` hands out the URLs of Exec, Attach and PortForward and has to run
    /// over [`crate::RuntimeStreams`].
    #[must_use]
    pub fn new(
        runtime: Arc<Runtime>,
        images: Arc<ImageStore>,
        streaming: Arc<joey_streaming::Server>,
        options: Options,
    ) -> Self {
        Self {
            runtime,
            images,
            streaming,
            options: Arc::new(options),
        }
    }

    /// The gRPC server of RuntimeService.
    #[must_use]
    pub fn runtime_server(&self) -> RuntimeServiceServer<Self> {
        RuntimeServiceServer::new(self.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The gRPC server of ImageService.
    #[must_use]
    pub fn image_server(&self) -> ImageServiceServer<Self> {
        ImageServiceServer::new(self.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// A CRI client's pod. The pods of the `joey` command line are not there for it.
    pub(crate) fn pod(&self, id: &str) -> Result<Arc<Pod>> {
        named(id, "pod_sandbox_id")?;
        let pod = self.runtime.pod(id)?;
        if pod.record().config.owner != Owner::Cri {
            return Err(Failure::NotFound {
                kind: "pod sandbox",
                id: id.to_owned(),
            });
        }
        Ok(pod)
    }

    /// Ids of the images of the `joey` command line's containers.
    pub(crate) fn held_images(&self) -> HashSet<String> {
        self.runtime.images_in_use(Owner::Joey)
    }

    /// A CRI client's container.
    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>> {
        named(id, "container_id")?;
        let container = self.runtime.container(id)?;
        match self.pod(&container.record().pod_id) {
            Ok(_) => Ok(container),
            Err(_) => Err(Failure::NotFound {
                kind: "container",
                id: id.to_owned(),
            }),
        }
    }

    /// An unknown handler is refused; the empty name is the default one.
    pub(crate) fn check_handler(&self, name: &str) -> Result<()> {
        let known = self.runtime.info().handlers;
        if name.is_empty() || known.iter().any(|handler| handler.name == name) {
            return Ok(());
        }
        let names: Vec<_> = known
            .iter()
            .map(|handler| format!("{:?}", handler.name))
            .collect();
        Err(invalid(format!(
            "runtime handler {name:?} is unknown, there are {}",
            names.join(", ")
        )))
    }

    /// The names a container's image has now.
    pub(crate) fn image_names(&self, record: &ContainerRecord) -> ImageNames {
        self.images
            .get(&record.config.image.id)
            .map_or_else(ImageNames::default, |image| ImageNames {
                tags: image.repo_tags.clone(),
                digests: image.repo_digests.clone(),
            })
    }
}

/// Names of images already looked up in one list: many containers share a few images.
#[derive(Debug, Default)]
pub(crate) struct ImageNameCache(HashMap<String, ImageNames>);

impl ImageNameCache {
    pub(crate) fn of(&mut self, service: &Service, record: &ContainerRecord) -> &ImageNames {
        self.0
            .entry(record.config.image.id.clone())
            .or_insert_with(|| service.image_names(record))
    }
}

fn named(id: &str, field: &str) -> Result<()> {
    crate::request::non_empty(id, field)
}

/// "Not found" is success where the request is that something be gone.
pub(crate) fn gone<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Failure::NotFound { .. }) => Ok(None),
        Err(Failure::Runtime(error)) if is_not_found(&error) => Ok(None),
        Err(other) => Err(other),
    }
}

fn is_not_found(error: &joey_runtime::Error) -> bool {
    matches!(error.root(), joey_runtime::Error::NotFound { .. })
}
