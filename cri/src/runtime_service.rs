//! `RuntimeService`: each RPC goes to its own module.

use joey_proto::cri;
use joey_proto::cri::runtime_service_server::RuntimeService;
use tonic::{Request, Response, Status};

use crate::chunks::Listing;
use crate::operation;
use crate::service::Service;

/// Writes the RPCs of a service: `name(Request) -> Response = module::function, "Name";`, those
/// that answer with a stream with the name of the stream's type.
macro_rules! rpcs {
    ($trait:ident {
        $($rpc:ident($request:ident) -> $response:ident = $module:ident, $name:literal;)*
    } streams {
        $($stream_rpc:ident($stream_request:ident) -> $stream:ident($item:ident)
            = $stream_module:ident, $stream_name:literal;)*
    }) => {
        #[tonic::async_trait]
        impl $trait for Service {
            $(async fn $rpc(
                &self,
                request: Request<cri::$request>,
            ) -> Result<Response<cri::$response>, Status> {
                let span = operation::span_of!($name);
                operation::run(span, request, |request| crate::$module::serve(self, request)).await
            })*

            $(type $stream = Listing<cri::$item>;

            async fn $stream_rpc(
                &self,
                request: Request<cri::$stream_request>,
            ) -> Result<Response<Self::$stream>, Status> {
                let span = operation::span_of!($stream_name);
                let serve = |request| crate::$stream_module::stream(self, request);
                operation::run(span, request, serve).await
            })*
        }
    };
}
pub(crate) use rpcs;

rpcs! {
    RuntimeService {
        version(VersionRequest) -> VersionResponse = version, "Version";
        run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse
            = run_pod_sandbox, "RunPodSandbox";
        stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse
            = stop_pod_sandbox, "StopPodSandbox";
        remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse
            = remove_pod_sandbox, "RemovePodSandbox";
        pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse
            = pod_sandbox_status, "PodSandboxStatus";
        list_pod_sandbox(ListPodSandboxRequest) -> ListPodSandboxResponse
            = list_pod_sandbox, "ListPodSandbox";
        create_container(CreateContainerRequest) -> CreateContainerResponse
            = create_container, "CreateContainer";
        start_container(StartContainerRequest) -> StartContainerResponse
            = start_container, "StartContainer";
        stop_container(StopContainerRequest) -> StopContainerResponse
            = stop_container, "StopContainer";
        remove_container(RemoveContainerRequest) -> RemoveContainerResponse
            = remove_container, "RemoveContainer";
        list_containers(ListContainersRequest) -> ListContainersResponse
            = list_containers, "ListContainers";
        container_status(ContainerStatusRequest) -> ContainerStatusResponse
            = container_status, "ContainerStatus";
        update_container_resources(UpdateContainerResourcesRequest)
            -> UpdateContainerResourcesResponse
            = update_container_resources, "UpdateContainerResources";
        reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse
            = reopen_container_log, "ReopenContainerLog";
        exec_sync(ExecSyncRequest) -> ExecSyncResponse = exec_sync, "ExecSync";
        exec(ExecRequest) -> ExecResponse = exec, "Exec";
        attach(AttachRequest) -> AttachResponse = attach, "Attach";
        port_forward(PortForwardRequest) -> PortForwardResponse = port_forward, "PortForward";
        container_stats(ContainerStatsRequest) -> ContainerStatsResponse
            = container_stats, "ContainerStats";
        list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse
            = list_container_stats, "ListContainerStats";
        pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse
            = pod_sandbox_stats, "PodSandboxStats";
        list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse
            = list_pod_sandbox_stats, "ListPodSandboxStats";
        update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse
            = update_runtime_config, "UpdateRuntimeConfig";
        status(StatusRequest) -> StatusResponse = runtime_status, "Status";
        checkpoint_container(CheckpointContainerRequest) -> CheckpointContainerResponse
            = checkpoint_container, "CheckpointContainer";
        list_metric_descriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse
            = list_metric_descriptors, "ListMetricDescriptors";
        list_pod_sandbox_metrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse
            = list_pod_sandbox_metrics, "ListPodSandboxMetrics";
        runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse
            = runtime_config, "RuntimeConfig";
        update_pod_sandbox_resources(UpdatePodSandboxResourcesRequest)
            -> UpdatePodSandboxResourcesResponse
            = update_pod_sandbox_resources, "UpdatePodSandboxResources";
    } streams {
        stream_pod_sandboxes(StreamPodSandboxesRequest)
            -> StreamPodSandboxesStream(StreamPodSandboxesResponse)
            = list_pod_sandbox, "StreamPodSandboxes";
        stream_containers(StreamContainersRequest)
            -> StreamContainersStream(StreamContainersResponse)
            = list_containers, "StreamContainers";
        stream_container_stats(StreamContainerStatsRequest)
            -> StreamContainerStatsStream(StreamContainerStatsResponse)
            = list_container_stats, "StreamContainerStats";
        stream_pod_sandbox_stats(StreamPodSandboxStatsRequest)
            -> StreamPodSandboxStatsStream(StreamPodSandboxStatsResponse)
            = list_pod_sandbox_stats, "StreamPodSandboxStats";
        stream_pod_sandbox_metrics(StreamPodSandboxMetricsRequest)
            -> StreamPodSandboxMetricsStream(StreamPodSandboxMetricsResponse)
            = list_pod_sandbox_metrics, "StreamPodSandboxMetrics";
        get_container_events(GetEventsRequest)
            -> GetContainerEventsStream(ContainerEventResponse)
            = get_container_events, "GetContainerEvents";
    }
}
