//! What a CNI plugin answers. It is foreign text: sizes are bounded, and what makes no sense is an
//! error, never a panic.

use std::net::IpAddr;

use serde_json::Value;

use super::version::Version;

const MAX_ADDRESSES: usize = 64;
const MAX_INTERFACES: usize = 256;

/// Why an answer can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ResultError {
    /// It is no JSON.
    #[error("the result is no JSON")]
    Json(#[source] serde_json::Error),
    /// It is not what the CNI specification wants.
    #[error("the result is bad: {0}")]
    Invalid(String),
}

/// The part of a result a pod's status needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Addresses {
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) gateways: Vec<IpAddr>,
    pub(crate) mac: Option<String>,
    pub(crate) host_interface: Option<String>,
}

/// Reads a result of a list of this version, for the interface `name`.
pub(crate) fn addresses(
    result: &Value,
    version: Version,
    name: &str,
) -> Result<Addresses, ResultError> {
    let object = result.as_object();
    let object = object.ok_or_else(|| ResultError::Invalid("it is no JSON object".to_owned()))?;
    let version = match object.get("cniVersion").and_then(Value::as_str) {
        Some(text) => text.parse().map_err(ResultError::Invalid)?,
        None => version,
    };
    if version < Version::LISTS {
        return old(result);
    }
    let interfaces = list(result, "interfaces", MAX_INTERFACES)?;
    let inside = |interface: &Value| {
        interface
            .get("sandbox")
            .and_then(Value::as_str)
            .is_some_and(|sandbox| !sandbox.is_empty())
    };
    let text = |value: &Value, key: &str| {
        let text = value.get(key).and_then(Value::as_str).unwrap_or_default();
        (!text.is_empty() && text.len() <= 128).then(|| text.to_owned())
    };
    let named = |interface: &&Value| text(interface, "name").as_deref() == Some(name);
    let mut found = Addresses {
        mac: interfaces
            .iter()
            .find(|interface| inside(interface) && named(interface))
            .and_then(|interface| text(interface, "mac")),
        // Bridges come before the pod's own other end, which is the last outside.
        host_interface: interfaces
            .iter()
            .rev()
            .find(|interface| !inside(interface))
            .and_then(|interface| text(interface, "name")),
        ..Addresses::default()
    };
    for entry in list(result, "ips", MAX_ADDRESSES)? {
        let index = entry.get("interface").and_then(Value::as_u64);
        let interface = index.and_then(|index| interfaces.get(usize::try_from(index).ok()?));
        if interface.is_some_and(|interface| !inside(interface)) {
            continue;
        }
        found.ips.push(cidr(entry.get("address"))?);
        if let Some(gateway) = entry.get("gateway").and_then(Value::as_str)
            && let Ok(gateway) = gateway.parse()
        {
            found.gateways.push(gateway);
        }
    }
    Ok(found)
}

/// Results before 0.3.0 have one address of each family.
fn old(result: &Value) -> Result<Addresses, ResultError> {
    let mut found = Addresses::default();
    for entry in ["ip4", "ip6"]
        .iter()
        .filter_map(|family| result.get(family))
    {
        found.ips.push(cidr(entry.get("ip"))?);
        let gateway = entry.get("gateway").and_then(Value::as_str);
        found
            .gateways
            .extend(gateway.and_then(|gateway| gateway.parse::<IpAddr>().ok()));
    }
    Ok(found)
}

fn list<'a>(result: &'a Value, key: &str, limit: usize) -> Result<&'a [Value], ResultError> {
    match result.get(key) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(list)) if list.len() <= limit => Ok(list),
        Some(Value::Array(list)) => {
            let reason = format!("{} {key} are more than {limit}", list.len());
            Err(ResultError::Invalid(reason))
        }
        Some(_) => Err(ResultError::Invalid(format!("'{key}' is no list"))),
    }
}

fn cidr(value: Option<&Value>) -> Result<IpAddr, ResultError> {
    let text = value.and_then(Value::as_str).unwrap_or_default();
    let address = text.split_once('/').map_or(text, |(address, _)| address);
    address.parse().map_err(|_| {
        let shown: String = text.chars().take(64).collect();
        ResultError::Invalid(format!("{shown:?} is no address"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(result: &Value) -> Result<Addresses, ResultError> {
        addresses(result, Version::NEWEST, "eth0")
    }

    #[test]
    fn a_bridges_result() {
        let result = json!({
            "cniVersion": "1.0.0",
            "interfaces": [
                {"name": "cni0", "mac": "aa:aa:aa:aa:aa:aa"},
                {"name": "veth1", "mac": "bb:bb:bb:bb:bb:bb"},
                {"name": "eth0", "mac": "cc:cc:cc:cc:cc:cc", "sandbox": "/run/netns/x"},
            ],
            "ips": [
                {"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 2},
                {"address": "fd00::2/64", "gateway": "nonsense", "interface": 2},
                {"address": "10.9.0.1/24", "interface": 0},
            ],
        });
        let found = read(&result).unwrap();
        assert_eq!(
            found.ips,
            [
                "10.1.0.2".parse::<IpAddr>().unwrap(),
                "fd00::2".parse().unwrap()
            ]
        );
        assert_eq!(found.gateways, ["10.1.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(found.mac.as_deref(), Some("cc:cc:cc:cc:cc:cc"));
        assert_eq!(found.host_interface.as_deref(), Some("veth1"));
    }

    #[test]
    fn an_old_result() {
        let result = json!({"ip4": {"ip": "10.1.0.2/24", "gateway": "10.1.0.1"}});
        let found = addresses(&result, Version::DEFAULT, "eth0").unwrap();
        assert_eq!(found.ips.len(), 1);
    }

    #[test]
    fn hostile_results_are_errors() {
        for bad in [
            json!([]),
            json!({"ips": {}}),
            json!({"ips": [{}]}),
            json!({"ips": [{"address": 7}]}),
            json!({"ips": [{"address": "x".repeat(100_000)}]}),
            json!({"ips": vec![json!({"address": "10.0.0.1/8"}); 100]}),
            json!({"interfaces": "x"}),
            json!({"cniVersion": "x"}),
        ] {
            read(&bad).unwrap_err();
        }
        let strange = json!({"ips": [{"address": "10.0.0.1/8", "interface": u64::MAX}]});
        assert_eq!(read(&strange).unwrap().ips.len(), 1);
        assert_eq!(
            read(&json!({"ips": null, "interfaces": null})).unwrap(),
            Addresses::default()
        );
    }
}
