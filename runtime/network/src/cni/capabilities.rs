//! What plugins are told beyond their configuration: `runtimeConfig` and `CNI_ARGS`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::conf::PluginConf;
use crate::types::AttachRequest;

const INGRESS: &str = "kubernetes.io/ingress-bandwidth";
const EGRESS: &str = "kubernetes.io/egress-bandwidth";
/// Bounds of a rate in bits per second, as Kubernetes sets them.
const MIN_RATE: u128 = 1_000;
const MAX_RATE: u128 = 1_000_000_000_000_000;
/// Bits that may pass at once: no bound of our own.
const BURST: u32 = u32::MAX;

/// Why a pod can't be described to plugins.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CapabilityError {
    /// A bandwidth annotation is no rate.
    #[error("annotation {annotation}={value:?}: {reason}")]
    Bandwidth {
        /// The annotation.
        annotation: &'static str,
        /// Its value.
        value: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A value would break the list of arguments.
    #[error("{key}={value:?} can't be passed to CNI plugins")]
    Argument {
        /// Which.
        key: &'static str,
        /// Its value.
        value: String,
    },
}

/// Values for every capability the request has something for.
pub(crate) fn values(request: &AttachRequest) -> Result<BTreeMap<String, Value>, CapabilityError> {
    let mut values = BTreeMap::new();
    let mut set = |key: &str, value: Value| {
        values.insert(key.to_owned(), value);
    };
    let mappings: Vec<Value> = request
        .port_mappings
        .iter()
        .filter(|mapping| mapping.host_port > 0)
        .map(|mapping| {
            json!({
                "hostPort": mapping.host_port,
                "containerPort": mapping.container_port,
                "protocol": mapping.protocol.as_str(),
                "hostIP": mapping.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            })
        })
        .collect();
    if !mappings.is_empty() {
        set("portMappings", Value::Array(mappings));
    }
    if let Some(bandwidth) = bandwidth(&request.annotations)? {
        set("bandwidth", bandwidth);
    }
    if let Some(dns) = &request.dns {
        set("dns", json!(dns));
    }
    if !request.annotations.is_empty() {
        set(
            "io.kubernetes.cri.pod-annotations",
            json!(request.annotations),
        );
    }
    if !request.cgroup_parent.is_empty() {
        set("cgroupPath", json!(request.cgroup_parent));
    }
    if !request.ips.is_empty() {
        set("ips", json!(request.ips));
    }
    if let Some(mac) = &request.mac {
        set("mac", json!(mac));
    }
    Ok(values)
}

/// The `runtimeConfig` of a plugin: what it declares, of what there is.
pub(crate) fn runtime_config(
    plugin: &PluginConf,
    values: &BTreeMap<String, Value>,
) -> Map<String, Value> {
    let wanted = values
        .iter()
        .filter(|(capability, _)| plugin.can(capability));
    wanted
        .map(|(capability, value)| (capability.clone(), value.clone()))
        .collect()
}

/// `CNI_ARGS`.
pub(crate) fn arguments(request: &AttachRequest) -> Result<String, CapabilityError> {
    let mut text = "IgnoreUnknown=1".to_owned();
    let arguments = [
        ("K8S_POD_NAMESPACE", &request.pod_namespace),
        ("K8S_POD_NAME", &request.pod_name),
        ("K8S_POD_INFRA_CONTAINER_ID", &request.pod_id),
        ("K8S_POD_UID", &request.pod_uid),
    ];
    for (key, value) in arguments {
        if value.contains([';', '=', '\0', '\n']) {
            return Err(CapabilityError::Argument {
                key,
                value: value.clone(),
            });
        }
        text.push_str(&format!(";{key}={value}"));
    }
    Ok(text)
}

fn bandwidth(annotations: &BTreeMap<String, String>) -> Result<Option<Value>, CapabilityError> {
    let mut limits = Map::new();
    for (annotation, direction) in [(INGRESS, "ingress"), (EGRESS, "egress")] {
        if let Some(value) = annotations.get(annotation) {
            let bits = rate(value).map_err(|reason| CapabilityError::Bandwidth {
                annotation,
                value: value.clone(),
                reason,
            })?;
            limits.insert(format!("{direction}Rate"), json!(bits));
            limits.insert(format!("{direction}Burst"), json!(BURST));
        }
    }
    Ok((!limits.is_empty()).then_some(Value::Object(limits)))
}

/// A quantity of Kubernetes as bits per second, rounded up.
fn rate(text: &str) -> Result<u64, &'static str> {
    const NO_QUANTITY: &str = "it is no quantity such as 10M";
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || whole.len() + fraction.len() == 0 || number.len() > 18 {
        return Err(NO_QUANTITY);
    }
    let digits: u128 = format!("{whole}{fraction}")
        .parse()
        .map_err(|_| NO_QUANTITY)?;
    let (numerator, denominator): (u128, u128) = match suffix {
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        "" => (1, 1),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (MAX_RATE, 1),
        "E" => (MAX_RATE * 1_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => exponent(suffix).ok_or(NO_QUANTITY)?,
    };
    let scale = u32::try_from(fraction.len()).map_err(|_| NO_QUANTITY)?;
    let bits = (digits * numerator).div_ceil(denominator * 10_u128.pow(scale));
    if bits < MIN_RATE {
        return Err("it is less than 1k bits per second");
    }
    if bits > MAX_RATE {
        return Err("it is more than 1P bits per second");
    }
    u64::try_from(bits).map_err(|_| NO_QUANTITY)
}

fn exponent(suffix: &str) -> Option<(u128, u128)> {
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let factor = 10_u128
        .checked_pow(power.unsigned_abs())
        .filter(|_| power.abs() <= 18)?;
    Some(if power < 0 { (1, factor) } else { (factor, 1) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{DnsConfig, PortMapping, Protocol};

    #[test]
    fn rates_are_read_as_kubernetes_does() {
        for (text, bits) in [
            ("1k", 1_000),
            ("10M", 10_000_000),
            ("1.5M", 1_500_000),
            ("1Ki", 1_024),
            ("2e6", 2_000_000),
            ("1500000m", 1_500),
            ("1P", 1_000_000_000_000_000),
        ] {
            assert_eq!(rate(text), Ok(bits), "{text}");
        }
        for bad in [
            "", "M", "1", "999", "2P", "1E", "10Mbit", "-1M", "1.2.3M", "1e99", "1e", "٣M",
        ] {
            rate(bad).expect_err(bad);
        }
    }

    #[test]
    fn only_what_is_declared_is_told() {
        let request = AttachRequest {
            port_mappings: vec![
                PortMapping {
                    protocol: Protocol::Tcp,
                    container_port: 80,
                    host_port: 8080,
                    host_ip: None,
                },
                PortMapping {
                    protocol: Protocol::Udp,
                    container_port: 53,
                    host_port: 0,
                    host_ip: None,
                },
            ],
            annotations: [(INGRESS.to_owned(), "1M".to_owned())].into(),
            dns: Some(DnsConfig {
                servers: vec!["10.0.0.10".to_owned()],
                ..DnsConfig::default()
            }),
            cgroup_parent: "/kubepods/x".to_owned(),
            ips: vec!["10.0.0.9".parse().unwrap()],
            mac: Some("02:00:00:00:00:01".to_owned()),
            ..AttachRequest::default()
        };
        let values = values(&request).unwrap();
        assert_eq!(values.len(), 7);
        assert_eq!(
            values["portMappings"],
            json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}])
        );
        assert_eq!(
            values["bandwidth"],
            json!({"ingressRate": 1_000_000, "ingressBurst": u32::MAX})
        );
        let conf = json!({"type": "x", "capabilities": {"ips": true, "mac": false}});
        let conf = PluginConf {
            kind: "x".to_owned(),
            conf: conf.as_object().unwrap().clone(),
        };
        let config = runtime_config(&conf, &values);
        assert_eq!(Value::Object(config), json!({"ips": ["10.0.0.9"]}));
    }

    #[test]
    fn arguments_can_not_be_smuggled_in() {
        let mut request = AttachRequest {
            pod_id: "id".to_owned(),
            pod_name: "web".to_owned(),
            pod_namespace: "shop".to_owned(),
            pod_uid: "u".to_owned(),
            ..AttachRequest::default()
        };
        let expected = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;\
                        K8S_POD_INFRA_CONTAINER_ID=id;K8S_POD_UID=u";
        assert_eq!(arguments(&request).unwrap(), expected);
        request.pod_name = "web;X=1".to_owned();
        arguments(&request).unwrap_err();
    }
}
