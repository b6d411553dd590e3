//! What fuzzers call: requests as they come off the wire.

use joey_proto::cri;
use joey_runtime::model::PodConfig;
use prost::Message;

use crate::request;

fn some_image(name: &str) -> Option<String> {
    (name.len() % 2 == 0).then(|| format!("sha256:{}", "0".repeat(64)))
}

/// RunPodSandbox and CreateContainer, in this order, in length-prefixed messages.
pub fn request(mut data: &[u8]) {
    let Ok(pod) = cri::RunPodSandboxRequest::decode_length_delimited(&mut data) else {
        return;
    };
    let pod = pod
        .config
        .and_then(|config| request::pod(config, pod.runtime_handler).ok());
    let pod = pod.unwrap_or_else(|| PodConfig {
        name: "pod".to_owned(),
        ..PodConfig::default()
    });
    let Ok(container) = cri::CreateContainerRequest::decode(data) else {
        return;
    };
    if let Some(config) = container.config {
        drop(request::container(config, &pod, some_image));
    }
}
