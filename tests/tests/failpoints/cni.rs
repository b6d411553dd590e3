//! The operations about a pod's network with Debian's CNI plugins.

use joey_tests::Setup;

use crate::matrix;
use crate::operation::Operation;

const CONFIG: &str = r#"
[network]
mode = "cni"
cni_conf_dir = "FOLDER/net.d"
cni_bin_dirs = ["/usr/lib/cni"]
"#;

const BRIDGE: &str = r#"{
  "cniVersion": "1.0.0", "name": "test",
  "plugins": [
    {"type": "bridge", "bridge": "cnifail0", "isGateway": true, "ipMasq": true,
     "ipam": {"type": "host-local", "dataDir": "FOLDER/root/network/ipam",
              "ranges": [[{"subnet": "10.79.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}"#;

fn setup() -> Setup {
    let mut setup = Setup::with(CONFIG);
    let conf = ("net.d/10-test.conflist".into(), BRIDGE.into());
    setup.files.push(conf);
    setup
}

#[tokio::test]
async fn run_pod_sandbox_with_cni() {
    matrix::run_with(Operation::RunPodSandbox, &setup()).await;
}

#[tokio::test]
async fn stop_pod_sandbox_with_cni() {
    matrix::run_with(Operation::StopPodSandbox, &setup()).await;
}

#[tokio::test]
async fn remove_pod_sandbox_with_cni() {
    matrix::run_with(Operation::RemovePodSandbox, &setup()).await;
}
