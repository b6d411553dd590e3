//! CNI configurations and plugins of a test's own.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use joey_network::{Mode, Network, NetworkConfig};

use super::{Node, eventually};

pub const PLUGINS: &str = "/usr/lib/cni";

pub fn need_plugins() {
    let bridge = Path::new(PLUGINS).join("bridge");
    assert!(bridge.exists(), "Debian's containernetworking-plugins");
}

pub fn config(node: &Node, mode: Mode) -> NetworkConfig {
    NetworkConfig {
        mode,
        cni_bin_dirs: vec![node.path("bin"), PathBuf::from(PLUGINS)],
        cni_timeout_seconds: 10,
        ..node.config()
    }
}

pub fn write_conf(node: &Node, name: &str, text: &str) {
    std::fs::create_dir_all(node.path("net.d")).unwrap();
    let data = node.path("ipam");
    let text = text.replace("IPAM-DATA", data.to_str().unwrap());
    std::fs::write(node.path("net.d").join(name), text).unwrap();
}

/// A plugin that notes each call (command, whether it had a previous result) in a log.
pub fn write_plugin(node: &Node, name: &str, body: &str) {
    std::fs::create_dir_all(node.path("bin")).unwrap();
    let log = node.path("log");
    let script = format!(
        r#"#!/bin/sh
input=$(cat)
if [ "$CNI_COMMAND" = VERSION ]; then
  echo '{{"cniVersion":"1.1.0","supportedVersions":["0.4.0","1.0.0","1.1.0"]}}'
  exit 0
fi
before=none
case "$input" in *prevResult*) before=result;; esac
echo "$CNI_COMMAND {name} $CNI_IFNAME $before ${{CNI_NETNS:-no-netns}}" >> {log}
echo "$input" > {log}.{name}.$CNI_COMMAND
echo "$CNI_ARGS" > {log}.args
{body}
"#,
        log = log.display(),
    );
    let path = node.path("bin").join(name);
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

pub fn log(node: &Node) -> Vec<String> {
    let text = std::fs::read_to_string(node.path("log")).unwrap_or_default();
    std::fs::remove_file(node.path("log")).ok();
    text.lines()
        .map(|line| line.split(' ').take(4).collect::<Vec<_>>().join(" "))
        .collect()
}

pub async fn ready(network: &Network) {
    eventually("CNI is ready", || network.status().ready).await;
}

/// A plugin that gives one address.
pub const RESULT: &str = r#"[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"x"}],"ips":[{"address":"10.7.0.2/24","gateway":"10.7.0.1","interface":0}]}'
exit 0"#;
