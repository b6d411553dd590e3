//! Traces over OTLP, received by a collector of the test's own.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use joey_proto::cri::*;
use joey_tests::{Daemon, Stand, container_spec, eventually};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Keeps the spans it gets.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut resources = request.into_inner().resource_spans;
        resources.retain(|it| {
            let resource = it.resource.as_ref().unwrap();
            text(&resource.attributes, "service.name").as_deref() == Some("joeyd")
        });
        let scopes = resources.into_iter().flat_map(|it| it.scope_spans);
        let spans = scopes.flat_map(|it| it.spans);
        self.0.lock().unwrap().extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> (Self, SocketAddr) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = TowerToHyperService::new(TraceServiceServer::new(collector.clone()));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let stream = TokioIo::new(stream);
                let server = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(stream, service.clone()));
            }
        });
        (collector, address)
    }

    fn named(&self, name: &str) -> Vec<Span> {
        let spans = self.0.lock().unwrap();
        spans.iter().filter(|it| it.name == name).cloned().collect()
    }

    /// The one span of this name.
    async fn one(&self, name: &str) -> Span {
        let what = format!("a span {name}");
        eventually(&what, || async { !self.named(name).is_empty() }).await;
        let mut found = self.named(name);
        assert_eq!(found.len(), 1, "{name}");
        found.remove(0)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The text of an attribute.
fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|it| it.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

/// A call made within the caller's trace; `flags` 01 is sampled, 00 is not.
fn within<T>(message: T, flags: &str) -> Request<T> {
    let mut request = Request::new(message);
    let parent = format!("00-{TRACE}-{PARENT}-{flags}").parse().unwrap();
    request.metadata_mut().insert("traceparent", parent);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_their_steps_are_spans_of_the_callers_trace() {
    let (collector, address) = Collector::start().await;
    let stand = Stand::start_with(&format!("[tracing]\nendpoint = \"{address}\"\n")).await;
    let config = stand.pod_config("traced");
    let mut runtime = stand.client.runtime();

    // Nobody asks for these: not sampled.
    runtime.version(VersionRequest::default()).await.unwrap();
    let not = within(VersionRequest::default(), "00");
    runtime.version(not).await.unwrap();

    let pull = PullImageRequest {
        image: Some(ImageSpec {
            image: stand.image_name.clone(),
            ..ImageSpec::default()
        }),
        ..PullImageRequest::default()
    };
    let removal = RemoveImageRequest {
        image: pull.image.clone(),
    };
    stand.client.images().remove_image(removal).await.unwrap();
    let mut images = stand.client.images();
    images.pull_image(within(pull, "01")).await.unwrap();
    let run = RunPodSandboxRequest {
        config: Some(config.clone()),
        ..RunPodSandboxRequest::default()
    };
    let pod = runtime.run_pod_sandbox(within(run, "01")).await.unwrap();
    let pod = pod.into_inner().pod_sandbox_id;
    let main = container_spec("main", &stand.image, &["sleep", "1000"]);
    let id = stand.client.create(&pod, &main, &config).await.unwrap();
    let start = StartContainerRequest {
        container_id: id.clone(),
    };
    runtime.start_container(within(start, "01")).await.unwrap();
    let exec = ExecSyncRequest {
        container_id: id,
        cmd: vec!["/no/such/program".into()],
        timeout: 0,
    };
    let error = runtime.exec_sync(within(exec, "01")).await.unwrap_err();

    for (call, steps) in [
        (
            "PullImage",
            &["resolve image", "get layer", "commit image"][..],
        ),
        (
            "RunPodSandbox",
            &["start shim", "make namespaces", "attach network"],
        ),
        ("StartContainer", &["make cgroup", "start process"]),
        ("ExecSync", &["start command"]),
    ] {
        let span = collector.one(call).await;
        assert_eq!(hex(&span.trace_id), TRACE, "{call}");
        assert_eq!(hex(&span.parent_span_id), PARENT, "{call}");
        for step in steps {
            let step = collector.one(step).await;
            assert_eq!(step.parent_span_id, span.span_id, "{}", step.name);
            assert_eq!(step.trace_id, span.trace_id, "{}", step.name);
            assert!(step.start_time_unix_nano >= span.start_time_unix_nano);
            assert!(step.end_time_unix_nano <= span.end_time_unix_nano);
        }
    }
    let layer = collector.one("get layer").await;
    let digest = text(&layer.attributes, "digest").unwrap();
    assert!(digest.starts_with("sha256:"), "{layer:?}");
    let failed = collector.one("ExecSync").await;
    let operation = text(&failed.attributes, "operation").unwrap();
    assert!(error.message().contains(&operation), "{error}");
    let status = failed.status.unwrap();
    assert_eq!(status.code(), StatusCode::Error);
    assert!(status.message.contains("/no/such/program"), "{status:?}");
    assert!(collector.named("Version").is_empty());

    stand.client.remove_pod(&pod).await;
    stand.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_decides_where_no_caller_did() {
    let (collector, address) = Collector::start().await;
    let mut daemon = Daemon::start_with(&format!(
        "[log]\nlevel = \"error\"\n[tracing]\nendpoint = \"http://{address}\"\n\
         sampling_rate_per_million = 1000000\n"
    ))
    .await;
    let client = daemon.client().await;
    let not = within(RuntimeConfigRequest::default(), "00");
    client.runtime().runtime_config(not).await.unwrap();
    client
        .runtime()
        .status(StatusRequest::default())
        .await
        .unwrap();
    // The last spans are sent when the daemon ends.
    assert!(daemon.terminate().success());
    let status = collector.one("Status").await;
    assert!(status.parent_span_id.is_empty());
    assert!(collector.named("RuntimeConfig").is_empty());
}

/// Peak memory of a process, bytes.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|it| it.starts_with("VmHWM:")).unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_holds_nothing_up() {
    // Connections are taken by the kernel; nobody reads them.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let mut daemon = Daemon::start_with(&format!(
        "[tracing]\nendpoint = \"{address}\"\nsampling_rate_per_million = 1000000\n"
    ))
    .await;
    let client = daemon.client().await;
    let call = || async {
        let began = Instant::now();
        let mut runtime = client.runtime();
        runtime.version(VersionRequest::default()).await.unwrap();
        began.elapsed()
    };
    let mut slowest = Duration::ZERO;
    let mut peaks = Vec::new();
    // The first half fills the queue.
    for _ in 0..2 {
        for _ in 0..100 {
            let calls = futures::future::join_all((0..50).map(|_| call()));
            slowest = calls.await.into_iter().fold(slowest, Duration::max);
        }
        peaks.push(peak(daemon.pid()));
    }
    let grown = peaks[1] - peaks[0];
    let told = || daemon.log().matches("the collector takes no spans").count();
    eventually("the silence is told", || async { told() > 0 }).await;
    assert_eq!(told(), 1, "once");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert!(grown < 8 << 20, "{grown} bytes for 5,000 more calls");
    let began = Instant::now();
    assert!(daemon.terminate().success());
    assert!(began.elapsed() < Duration::from_secs(5));
}
