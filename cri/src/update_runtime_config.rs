//! UpdateRuntimeConfig.

use joey_proto::cri::{UpdateRuntimeConfigRequest, UpdateRuntimeConfigResponse};

use crate::operation::detached;
use crate::service::Service;
use crate::status::Result;

/// One range, or one of each family with a comma between; none changes nothing.
pub(crate) async fn serve(
    service: &Service,
    request: UpdateRuntimeConfigRequest,
) -> Result<UpdateRuntimeConfigResponse> {
    let config = request
        .runtime_config
        .and_then(|config| config.network_config);
    let ranges = ranges(&config.map(|config| config.pod_cidr).unwrap_or_default());
    if !ranges.is_empty() {
        let runtime = service.runtime.clone();
        detached(async move { Ok(runtime.set_pod_cidrs(ranges).await?) }).await?;
    }
    Ok(UpdateRuntimeConfigResponse {})
}

fn ranges(list: &str) -> Vec<String> {
    list.split(',')
        .map(str::trim)
        .filter(|range| !range.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_split_at_commas() {
        assert_eq!(
            ranges("10.1.0.0/24, fd00::/64"),
            ["10.1.0.0/24", "fd00::/64"]
        );
        assert!(ranges("").is_empty());
    }
}
