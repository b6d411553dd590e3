//! Status.

use std::collections::HashMap;

use joey_proto::cri::{
    RuntimeCondition, RuntimeFeatures, RuntimeHandler, RuntimeHandlerFeatures, RuntimeStatus,
    StatusRequest, StatusResponse,
};
use joey_runtime::RuntimeInfo;

use crate::reply;
use crate::service::Service;
use crate::status::Result;

#[allow(
    clippy::unused_async,
    reason = "every RPC is served by an async function"
)]
pub(crate) async fn serve(service: &Service, request: StatusRequest) -> Result<StatusResponse> {
    let info = service.runtime.info();
    let verbose = if request.verbose {
        reply::runtime_info(&info, &service.options)
    } else {
        HashMap::new()
    };
    Ok(StatusResponse {
        status: Some(RuntimeStatus {
            conditions: vec![
                condition("RuntimeReady", true, String::new(), String::new()),
                network_condition(service.runtime.network_status()),
            ],
        }),
        info: verbose,
        runtime_handlers: handlers(&info),
        features: Some(RuntimeFeatures {
            supplemental_groups_policy: true,
            user_namespaces_host_network: false,
        }),
    })
}

fn network_condition(network: joey_network::Status) -> RuntimeCondition {
    condition(
        "NetworkReady",
        network.ready,
        network.reason,
        network.message,
    )
}

fn condition(kind: &str, status: bool, reason: String, message: String) -> RuntimeCondition {
    RuntimeCondition {
        r#type: kind.to_owned(),
        status,
        reason,
        message,
    }
}

/// The default handler is there under the empty name.
fn handlers(info: &RuntimeInfo) -> Vec<RuntimeHandler> {
    let features = RuntimeHandlerFeatures {
        recursive_read_only_mounts: info.features.recursive_readonly,
        user_namespaces: info.features.user_namespaces && info.features.idmapped_mounts,
    };
    info.handlers
        .iter()
        .map(|handler| RuntimeHandler {
            name: handler.name.clone(),
            features: Some(features),
        })
        .collect()
}
