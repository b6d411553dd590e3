//! The files a pod's containers share: `/etc/hostname`, `/etc/hosts`, `/etc/resolv.conf`.

use std::path::Path;

use crate::error::{Error, Result};
use crate::model::{DnsConfig, NamespaceMode, PodConfig, UserNamespace};

/// Writes the files that do not depend on the pod's address.
pub(super) fn write(folder: &Path, config: &PodConfig, host_name: &str) -> Result<()> {
    let host_name = format!("{host_name}\n");
    put(&folder.join("hostname"), host_name.as_bytes(), config)?;
    let resolv = match &config.dns {
        Some(dns) => resolv_conf(dns),
        None => std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
    };
    put(&folder.join("resolv.conf"), resolv.as_bytes(), config)
}

/// Writes `/etc/hosts`; `addresses` are the pod's own.
pub(super) fn write_hosts(
    folder: &Path,
    config: &PodConfig,
    host_name: &str,
    addresses: &[std::net::IpAddr],
) -> Result<()> {
    let text = if config.network == NamespaceMode::Node {
        std::fs::read_to_string("/etc/hosts").unwrap_or_default()
    } else {
        hosts(host_name, addresses)
    };
    put(&folder.join("hosts"), text.as_bytes(), config)
}

fn hosts(host_name: &str, addresses: &[std::net::IpAddr]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    for address in addresses {
        text.push_str(&format!("{address}\t{host_name}\n"));
    }
    text
}

fn resolv_conf(dns: &DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

/// The file belongs to the pod's root. Not by a mapped mount: a tmpfs takes none before Linux 6.3.
fn put(path: &Path, bytes: &[u8], config: &PodConfig) -> Result<()> {
    joey_failpoint::hit("pod.file.write")
        .and_then(|()| std::fs::write(path, bytes))
        .map_err(|e| Error::file("write", path, e))?;
    let root = config.user_namespace.as_ref().and_then(UserNamespace::root);
    if let Some((uid, gid)) = root {
        std::os::unix::fs::chown(path, Some(uid), Some(gid))
            .map_err(|e| Error::file("give to the pod's root", path, e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_has_what_was_asked_for() {
        let dns = DnsConfig {
            servers: vec!["10.0.0.10".into(), "fd00::a".into()],
            searches: vec!["a.local".into(), "b".into()],
            options: vec!["ndots:5".into()],
        };
        assert_eq!(
            resolv_conf(&dns),
            "search a.local b\nnameserver 10.0.0.10\nnameserver fd00::a\noptions ndots:5\n"
        );
        assert_eq!(resolv_conf(&DnsConfig::default()), "");
    }

    #[test]
    fn hosts_names_the_pod() {
        let text = hosts("web", &["10.1.0.2".parse().unwrap()]);
        assert!(text.ends_with("10.1.0.2\tweb\n"));
    }
}
