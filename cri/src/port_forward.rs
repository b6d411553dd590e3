//! PortForward: the URL of a port forward.

use joey_proto::cri::{PortForwardRequest, PortForwardResponse};
use joey_runtime::Error;
use joey_runtime::model::PodState;

use crate::service::Service;
use crate::status::{Failure, Result, invalid};

#[allow(
    clippy::unused_async,
    reason = "every RPC is served by an async function"
)]
pub(crate) async fn serve(
    service: &Service,
    request: PortForwardRequest,
) -> Result<PortForwardResponse> {
    let pod = service.pod(&request.pod_sandbox_id)?;
    let ports = ports(&request.port)?;
    if pod.record().state != PodState::Ready {
        return Err(Failure::Runtime(Error::WrongState {
            kind: "pod sandbox",
            id: pod.id().to_owned(),
            state: "not ready",
            operation: "forwarding a port",
            needs: "ready",
        }));
    }
    let url = service.streaming.port_forward_url(pod.id(), ports)?;
    Ok(PortForwardResponse { url })
}

/// None at all is fine: SPDY clients name the port of each connection.
fn ports(ports: &[i32]) -> Result<Vec<u16>> {
    ports
        .iter()
        .map(|port| {
            u16::try_from(*port)
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| invalid(format!("port {port} is not in 1 … 65535")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_in_range() {
        assert_eq!(ports(&[1, 65535]).unwrap(), [1, 65535]);
        assert_eq!(ports(&[]).unwrap(), [0_u16; 0]);
        for port in [0, -1, 65536] {
            assert!(ports(&[port]).is_err(), "{port}");
        }
    }
}
