//! Generates the message and service types with a Rust protobuf compiler, so that no `protoc` is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let services = std::env::var_os("CARGO_FEATURE_GRPC").is_some();
    for (feature, file) in [
        ("CRI", "cri.proto"),
        ("API", "api.proto"),
        ("SHIM", "shim.proto"),
    ] {
        if std::env::var_os(format!("CARGO_FEATURE_{feature}")).is_none() {
            continue;
        }
        let descriptors = protox::compile([file], ["proto"])?;
        tonic_prost_build::configure()
            .build_server(services)
            .build_client(services)
            .bytes(".runtime.v1.KeyValue.value")
            .compile_fds(descriptors)?;
    }
    Ok(())
}
