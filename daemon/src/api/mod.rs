//! Joey's own API, for the `joey` command: one file per call.
//!
//! Each container is a pod of its own, owned by Joey and so invisible to the CRI.

mod attach;
mod check_login;
mod container_log;
mod create_container;
mod exec;
mod fd;
mod find;
mod follow;
mod images;
mod info;
mod inspect;
mod kill_container;
mod limits;
mod list_containers;
mod log_line;
mod logs;
mod names;
mod pull_image;
mod reaper;
mod remove_container;
mod sessions;
mod start_container;
mod status;
mod stream;
mod task;
mod turns;
mod update_container;
mod wait_container;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use joey_image::ImageStore;
use joey_proto::api::joey_server::Joey;
use joey_proto::api::{
    CheckLoginRequest, CheckLoginResponse, CreateContainerRequest, CreateContainerResponse,
    InfoRequest, InfoResponse, InspectRequest, InspectResponse, KillContainerRequest,
    KillContainerResponse, ListContainersRequest, ListContainersResponse, ListImagesRequest,
    ListImagesResponse, LogChunk, LogsRequest, PullImageRequest, PullProgress,
    RemoveContainerRequest, RemoveContainerResponse, RemoveImageRequest, RemoveImageResponse,
    RestartContainerRequest, RestartContainerResponse, StartContainerRequest,
    StartContainerResponse, StopContainerRequest, StopContainerResponse, StreamInput, StreamOutput,
    UpdateContainerRequest, UpdateContainerResponse, VersionRequest, VersionResponse,
    WaitContainerRequest, WaitContainerResponse,
};
use joey_runtime::Runtime;
use parking_lot::Mutex;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::config::Config;
use sessions::Sessions;
use status::Failure;
use turns::Turns;

/// The namespace of the pods that hold Joey's containers.
const NAMESPACE: &str = "joey";
/// The annotation of a pod that goes when its container has ended.
const AUTO_REMOVE: &str = "joey.io/auto-remove";
/// The most files of one log; its rotation renames every one.
pub const MAX_LOG_FILES: u32 = 100;
/// Messages a slow client may lag behind.
const STREAM_DEPTH: usize = 32;

type Answer<T> = Result<Response<T>, Status>;
type Stream<T> = ReceiverStream<Result<T, Status>>;

/// The service.
#[derive(Debug, Clone)]
pub struct Api(Arc<State>);

#[derive(Debug)]
struct State {
    runtime: Arc<Runtime>,
    images: Arc<ImageStore>,
    /// Folder of the containers' log folders.
    logs: PathBuf,
    config: Config,
    /// Names of containers that are being made.
    reserved: Mutex<HashSet<String>>,
    sessions: Sessions,
    turns: Turns,
}

impl Api {
    /// Serves what the runtime and the store have.
    #[must_use]
    pub fn new(runtime: Arc<Runtime>, images: Arc<ImageStore>, config: &Config) -> Self {
        Self(Arc::new(State {
            runtime,
            images,
            logs: config.root.join("container-logs"),
            config: config.clone(),
            reserved: Mutex::default(),
            sessions: Sessions::default(),
            turns: Turns::default(),
        }))
    }

    /// Frees what ended containers hold; for ever.
    pub async fn watch(&self) {
        reaper::run(&self.0).await;
    }
}

fn answer<T>(result: Result<T, Failure>) -> Answer<T> {
    result.map(Response::new).map_err(Status::from)
}

#[tonic::async_trait]
impl Joey for Api {
    type PullImageStream = Stream<PullProgress>;
    type LogsStream = Stream<LogChunk>;
    type ExecStream = Stream<StreamOutput>;
    type AttachStream = Stream<StreamOutput>;

    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        Ok(Response::new(info::version(&self.0)))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Answer<InfoResponse> {
        Ok(Response::new(info::info(&self.0)))
    }

    async fn pull_image(
        &self,
        request: Request<PullImageRequest>,
    ) -> Answer<Self::PullImageStream> {
        answer(pull_image::pull(&self.0, request.into_inner()))
    }

    async fn list_images(&self, _: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        Ok(Response::new(images::list(&self.0)))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Answer<RemoveImageResponse> {
        answer(images::remove(&self.0, request.into_inner()).await)
    }

    async fn check_login(&self, request: Request<CheckLoginRequest>) -> Answer<CheckLoginResponse> {
        answer(check_login::check(&self.0, request.into_inner()).await)
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Answer<CreateContainerResponse> {
        answer(create_container::create(&self.0, request.into_inner()).await)
    }

    async fn start_container(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Answer<StartContainerResponse> {
        answer(start_container::start(&self.0, request.get_ref()).await)
    }

    async fn restart_container(
        &self,
        request: Request<RestartContainerRequest>,
    ) -> Answer<RestartContainerResponse> {
        answer(start_container::restart(&self.0, request.into_inner()).await)
    }

    async fn stop_container(
        &self,
        request: Request<StopContainerRequest>,
    ) -> Answer<StopContainerResponse> {
        let StopContainerRequest { container, timeout } = request.into_inner();
        let stopped = async {
            let container = self.0.find(&container)?;
            let grace = Duration::from_secs(timeout.into());
            self.0.runtime.stop_container(container.id(), grace).await?;
            Ok(StopContainerResponse {})
        };
        answer(stopped.await)
    }

    async fn kill_container(
        &self,
        request: Request<KillContainerRequest>,
    ) -> Answer<KillContainerResponse> {
        answer(kill_container::kill(&self.0, &request.into_inner()).await)
    }

    async fn update_container(
        &self,
        request: Request<UpdateContainerRequest>,
    ) -> Answer<UpdateContainerResponse> {
        answer(update_container::update(&self.0, request.into_inner()).await)
    }

    async fn remove_container(
        &self,
        request: Request<RemoveContainerRequest>,
    ) -> Answer<RemoveContainerResponse> {
        answer(remove_container::remove(&self.0, &request.into_inner()).await)
    }

    async fn list_containers(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Answer<ListContainersResponse> {
        Ok(Response::new(list_containers::list(
            &self.0,
            request.get_ref().all,
        )))
    }

    async fn inspect(&self, request: Request<InspectRequest>) -> Answer<InspectResponse> {
        answer(inspect::inspect(&self.0, request.get_ref()))
    }

    async fn wait_container(
        &self,
        request: Request<WaitContainerRequest>,
    ) -> Answer<WaitContainerResponse> {
        answer(wait_container::wait(&self.0, &request.into_inner()).await)
    }

    async fn logs(&self, request: Request<LogsRequest>) -> Answer<Self::LogsStream> {
        answer(logs::logs(&self.0, &request.into_inner()))
    }

    async fn exec(&self, request: Request<Streaming<StreamInput>>) -> Answer<Self::ExecStream> {
        answer(exec::exec(&self.0, request.into_inner()).await)
    }

    async fn attach(&self, request: Request<Streaming<StreamInput>>) -> Answer<Self::AttachStream> {
        answer(attach::attach(&self.0, request.into_inner()).await)
    }
}
