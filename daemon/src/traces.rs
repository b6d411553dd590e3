//! Traces: a span for each call and for its main steps, sent to an OpenTelemetry collector (OTLP
//! over gRPC).
//!
//! Spans that have ended wait in a bounded queue for a thread of the exporter's own. Where the
//! collector is slow or away they are dropped; no call ever waits for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    self, BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, SpanData,
};
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::config::Tracing;

/// Spans that wait; more are dropped.
const QUEUE: usize = 4096;
/// Spans of one message.
const BATCH: usize = 512;
/// How long a span waits for others before it is sent.
const DELAY: Duration = Duration::from_secs(1);
/// The longest one message may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the last spans may take when the daemon ends.
const LAST: Duration = Duration::from_secs(2);

/// The export of spans.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Starts the exporter, where an endpoint is configured. Connects when there is something to
    /// send. Only within the async runtime.
    ///
    /// # Errors
    /// When the endpoint is no URL that can be sent to.
    pub fn start(config: &Tracing) -> Result<Option<Self>, ExporterBuildError> {
        if config.endpoint.is_empty() {
            return Ok(None);
        }
        // As the kubelet takes it: `host:port`.
        let endpoint = match config.endpoint.contains("://") {
            true => config.endpoint.clone(),
            false => format!("http://{}", config.endpoint),
        };
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .build()?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(DELAY)
            .build();
        let exporter = Reported {
            exporter,
            failing: AtomicBool::new(false),
        };
        let processor = BatchSpanProcessor::builder(exporter)
            .with_batch_config(batches)
            .build();
        let resource = Resource::builder()
            .with_service_name("joeyd")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let rate = f64::from(config.sampling_rate_per_million) / 1e6;
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_resource(resource)
            // A caller's own decision counts.
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
                rate,
            ))))
            .build();
        Ok(Some(Self { provider }))
    }

    /// What makes spans of the daemon's own, whatever the log's level is.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    {
        let tracer: SdkTracer = self.provider.tracer("joeyd");
        OpenTelemetryLayer::new(tracer)
            .with_context_activation(false)
            .with_tracked_inactivity(false)
            .with_threads(false)
            .with_location(false)
            .with_target(false)
            .with_filter(filter_fn(is_ours).with_max_level_hint(LevelFilter::DEBUG))
    }

    /// Sends what waits, within bounds. Not from async code.
    pub fn stop(self) {
        if let Err(error) = self.provider.shutdown_with_timeout(LAST) {
            tracing::debug!(%error, "the last spans are not sent");
        }
    }
}

/// Says when the collector stops taking spans and when it takes them again, not for each message.
#[derive(Debug)]
struct Reported {
    exporter: SpanExporter,
    failing: AtomicBool,
}

impl trace::SpanExporter for Reported {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let sent = self.exporter.export(batch).await;
        let failing = sent.is_err();
        if self.failing.swap(failing, Ordering::Relaxed) != failing {
            match &sent {
                Ok(()) => tracing::info!("the collector takes spans again"),
                Err(error) => {
                    tracing::warn!(%error, "the collector takes no spans; they are dropped");
                }
            }
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.is_span()
        && metadata.target().starts_with("joey")
        && *metadata.level() <= tracing::Level::DEBUG
}

/// The caller's span, from the W3C `traceparent` of its call.
pub fn caller(headers: &HeaderMap) -> Option<Context> {
    let context = TraceContextPropagator::new().extract(&Headers(headers));
    context.has_active_span().then_some(context)
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_span_is_taken_from_its_header() {
        let mut headers = HeaderMap::new();
        assert!(caller(&headers).is_none());
        headers.insert("traceparent", "nonsense".parse().unwrap());
        assert!(caller(&headers).is_none());
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        headers.insert("traceparent", parent.parse().unwrap());
        let context = caller(&headers).unwrap();
        let span = context.span().span_context().clone();
        assert_eq!(span.span_id().to_string(), "00f067aa0ba902b7");
        assert!(span.is_sampled() && span.is_remote());
    }

    #[tokio::test]
    async fn traces_are_off_by_default_and_tls_is_refused() {
        assert!(Traces::start(&Tracing::default()).unwrap().is_none());
        let encrypted = Tracing {
            endpoint: "https://127.0.0.1:4317".into(),
            ..Tracing::default()
        };
        let error = Traces::start(&encrypted).unwrap_err().to_string();
        assert!(error.contains("https://127.0.0.1:4317"), "{error}");
    }
}
