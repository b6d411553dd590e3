//! Streams over TLS: the configured certificate, and its renewal.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use joey_proto::cri::*;
use joey_tests::{Stand, binary, container_spec, eventually};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The streaming crate's test authority, and what it signed.
fn authority(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../cri/streaming/tests/authority")
        .join(name)
}

fn copy(name: &str, to: &Path) {
    std::fs::copy(authority(name), to).unwrap();
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

/// The certificate that an address presents.
async fn presented(address: &str) -> CertificateDer<'static> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate(&authority("ca.pem"))).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    chain[0].clone().into_owned()
}

#[tokio::test]
async fn urls_are_https_and_the_certificate_is_renewed_by_a_hangup() {
    let files = tempfile::tempdir().unwrap();
    let (pem, key) = (files.path().join("tls.pem"), files.path().join("tls.key"));
    copy("server.pem", &pem);
    copy("server.key", &key);
    let stand = Stand::start_with(&format!(
        "[streaming]\ntls_certificate = {pem:?}\ntls_key = {key:?}\n"
    ))
    .await;
    let config = stand.pod_config("tls");
    let pod = stand.client.run_pod(&config).await;
    let main = container_spec("main", &stand.image, &["sleep", "1000"]);
    let id = stand.client.run(&pod, &main, &config).await;
    let request = ExecRequest {
        container_id: id,
        cmd: vec!["true".into()],
        stdout: true,
        ..ExecRequest::default()
    };
    let url = stand.client.runtime().exec(request).await.unwrap();
    let url = url.into_inner().url;
    let address = url.strip_prefix("https://").unwrap();
    let address = address.split('/').next().unwrap();
    let first = certificate(&pem);
    assert_eq!(presented(address).await, first);

    std::fs::write(&key, "no key").unwrap();
    stand.daemon.reload();
    let daemon = &stand.daemon;
    eventually("the refusal is logged", || async {
        let log = daemon.log();
        log.contains("the old certificate of streaming stays") && log.contains("tls.key")
    })
    .await;
    assert_eq!(presented(address).await, first);

    copy("renewed.pem", &pem);
    copy("renewed.key", &key);
    stand.daemon.reload();
    eventually("the new certificate is presented", || async {
        presented(address).await == certificate(&pem)
    })
    .await;
    stand.client.remove_pod(&pod).await;
    stand.assert_clean().await;
}

#[test]
fn half_a_certificate_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    for (text, named) in [
        ("tls_certificate = \"/c.pem\"", "streaming.tls_key"),
        ("tls_key = \"/c.key\"", "streaming.tls_certificate"),
    ] {
        std::fs::write(&file, format!("[streaming]\n{text}\n")).unwrap();
        let ended = Command::new(binary("joeyd"))
            .arg("--config")
            .arg(&file)
            .arg("--root")
            .arg(folder.path().join("root"))
            .arg("--state")
            .arg(folder.path().join("state"))
            .output()
            .unwrap();
        let error = String::from_utf8(ended.stderr).unwrap();
        assert!(!ended.status.success(), "{text}");
        assert!(error.contains(&format!("{named}: is empty")), "{error}");
    }
    assert!(!folder.path().join("root").exists(), "nothing was made");
}
